package cffunction

import (
	"reflect"

	"github.com/dop251/goja"
	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/token"
)

// grown is what results of concatenation are passed through, a function of the
// prelude that counts them. No code can name it: the first character is in no
// identifier.
const grown = "\x00grown"

// countGrowth has every concatenation of a program whose operands may both be long
// counted: by itself the interpreter makes strings of any length, and one of them
// doubled a few dozen times is all memory that there is.
//
//	a + b        grown(a + b)
//	a += b       grown(a += b)
//	`x${a}y${b}` grown(`x${a}y` + `${b}`)
//
// A literal is not long, so what has one for an operand is left alone.
func countGrowth(p *ast.Program) { walk(reflect.ValueOf(p), map[any]bool{}) }

// nodes is the package whose types make up programs.
var nodes = reflect.TypeFor[ast.Program]().PkgPath()

var expression = reflect.TypeFor[ast.Expression]()

func walk(v reflect.Value, seen map[any]bool) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), seen)
		}
	case reflect.Interface:
		if v.IsNil() {
			return
		}
		walk(v.Elem(), seen)
		if v.Type() == expression && v.CanSet() {
			v.Set(reflect.ValueOf(counted(v.Interface().(ast.Expression))))
		}
	case reflect.Pointer:
		if v.IsNil() || v.Type().Elem().PkgPath() != nodes || seen[v.Interface()] {
			return // declarations are in a program twice
		}
		seen[v.Interface()] = true
		walk(v.Elem(), seen)
	case reflect.Struct:
		if v.Type().PkgPath() != nodes {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				walk(v.Field(i), seen)
			}
		}
	}
}

// counted returns an expression with its result counted, where it may be long.
func counted(e ast.Expression) ast.Expression {
	switch e := e.(type) {
	case *ast.BinaryExpression:
		if e.Operator == token.PLUS && !short(e.Left) && !short(e.Right) {
			return count(e)
		}
	case *ast.AssignExpression:
		if e.Operator == token.PLUS && !short(e.Right) {
			return count(e)
		}
	case *ast.TemplateLiteral:
		if e.Tag == nil && len(e.Expressions) > 1 {
			return chain(e)
		}
	}
	return e
}

func short(e ast.Expression) bool {
	switch e.(type) {
	case *ast.StringLiteral, *ast.NumberLiteral, *ast.BooleanLiteral, *ast.NullLiteral:
		return true
	}
	return false
}

func count(e ast.Expression) ast.Expression {
	return &ast.CallExpression{
		Callee: &ast.Identifier{Name: grown, Idx: e.Idx0()}, LeftParenthesis: e.Idx0(), ArgumentList: []ast.Expression{e}, RightParenthesis: file.Idx(int(e.Idx1()) - 1),
	}
}

// chain makes a template a concatenation of templates with one expression each.
func chain(t *ast.TemplateLiteral) ast.Expression {
	var all ast.Expression
	for i, e := range t.Expressions {
		before := &ast.TemplateElement{Idx: t.OpenQuote, Valid: true}
		if i == 0 {
			before = t.Elements[0]
		}
		one := &ast.TemplateLiteral{
			OpenQuote: t.OpenQuote, CloseQuote: t.CloseQuote, Elements: []*ast.TemplateElement{before, t.Elements[i+1]}, Expressions: []ast.Expression{e},
		}
		if all == nil {
			all = one
		} else {
			all = count(&ast.BinaryExpression{Operator: token.PLUS, Left: all, Right: one})
		}
	}
	return all
}

// compileCounted compiles code in strict mode, with its growth counted.
func compileCounted(name, code string) (*goja.Program, error) {
	p, err := goja.Parse(name, code)
	if err != nil {
		return nil, err
	}
	countGrowth(p)
	return goja.CompileAST(p, true)
}
