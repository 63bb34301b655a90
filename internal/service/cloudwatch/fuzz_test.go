package cloudwatch

import (
	"errors"
	"math"
	"testing"
	"time"
)

// FuzzExpression looks for expressions that upset the parser, or make data that
// are no numbers or out of order.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"m1 + 2*(3-m1)^2", "SUM(METRICS())/AVG(m1)", `MAX(METRICS("m"))`, "-1e", "ABS(", "((", "m1/0", "METRICS('"} {
		f.Add(s)
	}
	one := series{times: []time.Time{time.Unix(0, 0), time.Unix(60, 0)}, values: []float64{1, 0}}
	f.Fuzz(func(t *testing.T, expression string) {
		budget := mathBudget{10_000, 100}
		p := mathParser{
			rest: expression, budget: &budget,
			lookup: func(id string) (operand, error) {
				if id != "m1" {
					return operand{}, errors.New("unknown")
				}
				return operand{kind: timeSeries, series: []series{one}}, nil
			},
			metrics: func(string) operand { return operand{kind: array, series: []series{one, {}}} },
		}
		o, err := p.all()
		if err != nil {
			return
		}
		if budget.depth != 100 {
			t.Errorf("depth %d", budget.depth)
		}
		for _, s := range o.series {
			for i, v := range s.values {
				if math.IsNaN(v) || math.IsInf(v, 0) || i > 0 && !s.times[i-1].Before(s.times[i]) {
					t.Errorf("%v at %v", s.values, s.times)
				}
			}
		}
	})
}
