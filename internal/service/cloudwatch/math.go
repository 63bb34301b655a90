package cloudwatch

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Metric math, as far as it goes here: numbers, ids of queries, + - * / ^,
// parentheses, and the functions below (CloudWatch user guide, "Metric math
// syntax and functions"). Any other function is refused by its name.

// series is a time series, in the order of time.
type series struct {
	label  string
	times  []time.Time
	values []float64
}

// operand is what an expression can stand for.
type operand struct {
	kind   operandKind
	number float64
	series []series // one, or those of an array
}

type operandKind int

const (
	scalar operandKind = iota
	timeSeries
	array
)

// What bounds the work on one request.
const (
	maxMathPoints = 20_000_000 // that all operations together take in
	maxMathDepth  = 500        // of expressions within expressions
)

// mathBudget is what is left of it.
type mathBudget struct{ points, depth int }

// arithmetic holds the binary operators. What is no number, such as a division
// by 0, leaves its data point out.
var arithmetic = map[byte]func(a, b float64) float64{
	'+': func(a, b float64) float64 { return a + b },
	'-': func(a, b float64) float64 { return a - b },
	'*': func(a, b float64) float64 { return a * b },
	'/': func(a, b float64) float64 { return a / b },
	'^': math.Pow,
}

// combine applies an operator: to two time series at each time that both have,
// to a series and a number at each time of the series, to an array for each of
// its series.
func combine(op byte, a, b operand) (operand, error) {
	f := arithmetic[op]
	switch {
	case a.kind == array && b.kind == array:
		return operand{}, fmt.Errorf("the operator %c cannot be applied to two arrays of time series", op)
	case a.kind == scalar && b.kind == scalar:
		return operand{number: f(a.number, b.number)}, nil
	case b.kind == scalar:
		return a.each(func(s series) series { return s.apply(func(v float64) float64 { return f(v, b.number) }) }), nil
	case a.kind == scalar:
		return b.each(func(s series) series { return s.apply(func(v float64) float64 { return f(a.number, v) }) }), nil
	case a.kind == array:
		return a.each(func(s series) series { return s.join(b.series[0], f) }), nil
	}
	return b.each(func(s series) series { return a.series[0].join(s, f) }), nil
}

// each applies f to every series.
func (o operand) each(f func(series) series) operand {
	out := operand{kind: o.kind, series: make([]series, len(o.series))}
	for i, s := range o.series {
		out.series[i] = f(s)
	}
	return out
}

// points is how many data points there are, and at least 1.
func (o operand) points() int {
	n := 1
	for i := range o.series {
		n += len(o.series[i].values)
	}
	return n
}

func (s *series) add(at time.Time, v float64) {
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		s.times, s.values = append(s.times, at), append(s.values, v)
	}
}

func (s series) apply(f func(float64) float64) series {
	out := series{label: s.label}
	for i, v := range s.values {
		out.add(s.times[i], f(v))
	}
	return out
}

func (s series) join(o series, f func(a, b float64) float64) series {
	out := series{label: s.label}
	for i, j := 0, 0; i < len(s.times) && j < len(o.times); {
		switch c := s.times[i].Compare(o.times[j]); {
		case c < 0:
			i++
		case c > 0:
			j++
		default:
			out.add(s.times[i], f(s.values[i], o.values[j]))
			i, j = i+1, j+1
		}
	}
	return out
}

// reducers make one number of several; n is of how many.
var reducers = map[string]func(values []float64, n int) float64{
	"SUM": func(values []float64, _ int) float64 { return sum(values) },
	"AVG": func(values []float64, n int) float64 { return sum(values) / float64(n) },
	"MIN": func(values []float64, _ int) float64 { return slices.Min(values) },
	"MAX": func(values []float64, _ int) float64 { return slices.Max(values) },
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// reduce applies a reducer: a time series becomes a number, an array a time
// series. AVG takes a series of an array that lacks a time as 0 there.
func reduce(name string, o operand) (operand, error) {
	f := reducers[name]
	switch o.kind {
	case scalar:
		return operand{}, fmt.Errorf("the function %s needs a time series, or an array of such", name)
	case timeSeries:
		values := o.series[0].values
		if len(values) == 0 {
			return operand{number: math.NaN()}, nil
		}
		return operand{number: f(values, len(values))}, nil
	}
	at := map[time.Time][]float64{}
	for _, s := range o.series {
		for i, v := range s.values {
			at[s.times[i]] = append(at[s.times[i]], v)
		}
	}
	times := make([]time.Time, 0, len(at))
	for t := range at {
		times = append(times, t)
	}
	slices.SortFunc(times, time.Time.Compare)
	out := series{}
	for _, t := range times {
		out.add(t, f(at[t], len(o.series)))
	}
	return operand{kind: timeSeries, series: []series{out}}, nil
}

// roundings change each value by itself.
var roundings = map[string]func(float64) float64{"ABS": math.Abs, "CEIL": math.Ceil, "FLOOR": math.Floor}

// mathFunctions names what there is, for errors.
const mathFunctions = "ABS, AVG, CEIL, FLOOR, MAX, METRICS, MIN, SUM"

// mathParser evaluates an expression while it reads it.
type mathParser struct {
	rest string
	// lookup finds the result of a query; metrics are those of all queries of
	// metrics whose id contains a text.
	lookup  func(id string) (operand, error)
	metrics func(containing string) operand
	budget  *mathBudget
}

// all reads the whole expression.
func (p *mathParser) all() (operand, error) {
	o, err := p.sum()
	if err == nil && p.peek() != 0 {
		err = fmt.Errorf("unexpected %q", p.rest)
	}
	return o, err
}

// peek returns the next character that is no space, 0 at the end.
func (p *mathParser) peek() byte {
	if p.rest = strings.TrimLeft(p.rest, " \t\r\n"); p.rest == "" {
		return 0
	}
	return p.rest[0]
}

// take takes a character, if it is the next.
func (p *mathParser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// spend counts work, and ends it where it is too much.
func (p *mathParser) spend(operands ...operand) error {
	for _, o := range operands {
		if p.budget.points -= o.points(); p.budget.points < 0 {
			return fmt.Errorf("more than %d data points would have to be computed", maxMathPoints)
		}
	}
	return nil
}

// binary reads operands of next with the operators between them.
func (p *mathParser) binary(operators string, next func() (operand, error)) (operand, error) {
	a, err := next()
	for err == nil {
		op := p.peek()
		if op == 0 || strings.IndexByte(operators, op) < 0 {
			return a, nil
		}
		p.take(op)
		var b operand
		if b, err = next(); err != nil {
			break
		}
		if err = p.spend(a, b); err == nil {
			a, err = combine(op, a, b)
		}
	}
	return operand{}, err
}

func (p *mathParser) sum() (operand, error)     { return p.binary("+-", p.product) }
func (p *mathParser) product() (operand, error) { return p.binary("*/", p.negated) }
func (p *mathParser) power() (operand, error)   { return p.binary("^", p.primary) }

func (p *mathParser) negated() (operand, error) {
	if p.budget.depth--; p.budget.depth < 0 {
		return operand{}, errors.New("it is nested too deeply")
	}
	defer func() { p.budget.depth++ }()
	if !p.take('-') {
		return p.power()
	}
	o, err := p.negated()
	if err != nil {
		return o, err
	}
	if err := p.spend(o); err != nil {
		return o, err
	}
	return combine('-', operand{}, o)
}

func (p *mathParser) primary() (operand, error) {
	c := p.peek()
	switch {
	case c == '(':
		p.take('(')
		o, err := p.sum()
		if err == nil && !p.take(')') {
			err = errors.New("a ) is missing")
		}
		return o, err
	case c >= '0' && c <= '9' || c == '.':
		text := p.word(func(c byte) bool { return c >= '0' && c <= '9' || c == '.' })
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return operand{}, fmt.Errorf("%s is no number", text)
		}
		return operand{number: v}, nil
	case c >= 'a' && c <= 'z':
		return p.lookup(p.word(isWord))
	case c >= 'A' && c <= 'Z':
		return p.call(p.word(isWord))
	case c == 0:
		return operand{}, errors.New("it ends where a number, an id or a function is expected")
	}
	return operand{}, fmt.Errorf("unexpected %q", p.rest)
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *mathParser) word(is func(byte) bool) string {
	n := 0
	for n < len(p.rest) && is(p.rest[n]) {
		n++
	}
	word := p.rest[:n]
	p.rest = p.rest[n:]
	return word
}

// call reads the arguments of a function and applies it.
func (p *mathParser) call(name string) (operand, error) {
	if !p.take('(') {
		return operand{}, fmt.Errorf("unexpected %q", name)
	}
	if name == "METRICS" {
		return p.callMetrics()
	}
	change, rounds := roundings[name]
	if _, reduces := reducers[name]; !reduces && !rounds {
		return operand{}, fmt.Errorf("the function %s is not supported by Lapwing, which has %s", name, mathFunctions)
	}
	o, err := p.sum()
	if err != nil {
		return o, err
	}
	if !p.take(')') {
		return o, fmt.Errorf("the function %s takes one argument, and then a )", name)
	}
	if err := p.spend(o); err != nil {
		return o, err
	}
	switch {
	case !rounds:
		return reduce(name, o)
	case o.kind == scalar:
		return operand{number: change(o.number)}, nil
	}
	return o.each(func(s series) series { return s.apply(change) }), nil
}

// callMetrics reads what follows METRICS( and returns the metrics.
func (p *mathParser) callMetrics() (operand, error) {
	containing := ""
	if quote := p.peek(); quote == '"' || quote == '\'' {
		p.take(quote)
		var ended bool
		if containing, p.rest, ended = strings.Cut(p.rest, string(quote)); !ended {
			return operand{}, fmt.Errorf("a %c is missing", quote)
		}
	}
	if !p.take(')') {
		return operand{}, errors.New("the function METRICS takes nothing, or a text in quotes")
	}
	return p.metrics(containing), nil
}
