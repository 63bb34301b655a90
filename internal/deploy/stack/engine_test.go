package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// world is a service that has things by name. After some calls its client is
// killed, before or after the last one was carried out.
type world struct {
	things map[string]map[string]string
	left   int // calls until it stops; negative: never
}

var errKilled = errors.New("killed")

// step counts a call.
func (w *world) step() error {
	if w.left == 0 {
		return errKilled
	}
	w.left--
	return nil
}

func (w *world) put(c *call, mustExist bool) error {
	if err := w.step(); err != nil {
		return err
	}
	_, there := w.things[c.id]
	if there && !mustExist {
		return refusal("ResourceConflictException")
	}
	if !there && mustExist {
		return refusal("ResourceNotFoundException")
	}
	if c.str("Note") == "refused" {
		return refusal("InvalidParameterValueException")
	}
	m := map[string]string{}
	if mustExist {
		m = maps.Clone(w.things[c.id])
	}
	for name := range strings.FieldsSeq("Name Size On Note") {
		if !c.has(name) {
			continue
		}
		delete(m, name)
		if v, ok := text(c.props[name]); ok {
			m[name] = v
		}
	}
	w.things[c.id] = m
	if w.left == 0 {
		return errKilled // carried out, and nobody heard of it
	}
	return nil
}

// refusal is an answer of a service, with status 400.
func refusal(code string) error {
	return &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusBadRequest}}, Err: &smithy.GenericAPIError{Code: code}}}
}

func (w *world) kind() kind {
	return kind{
		properties: "Name! Size On! Note", attributes: []string{"Arn"}, name: "Name", limit: 60,
		check:  func(c *call) error { return bind(c.only("Size"), &struct{ Size *int32 }{}) },
		create: func(_ context.Context, c *call) error { return w.put(c, false) },
		update: func(_ context.Context, c *call) error { return w.put(c, true) },
		remove: func(_ context.Context, c *call) error {
			if err := w.step(); err != nil {
				return err
			}
			if w.things[c.id] == nil {
				return refusal("ResourceNotFoundException")
			}
			delete(w.things, c.id)
			return nil
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "Arn": "arn:" + c.id}, nil
		},
	}
}

const thing = "Test::Thing"

// play deploys a template into a world, with a state that survives as JSON.
type play struct {
	t     *testing.T
	w     *world
	saved []byte
}

func newPlay(t *testing.T) *play {
	p := &play{t: t, w: &world{things: map[string]map[string]string{}, left: -1}}
	kinds[thing] = p.w.kind()
	t.Cleanup(func() { delete(kinds, thing) })
	p.save(context.Background(), NewState("s", "1", "r"))
	return p
}

func (p *play) save(_ context.Context, st *State) error {
	if p.w.left == 0 {
		return errKilled
	}
	if p.w.left > 0 {
		p.w.left--
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	p.saved = b
	return nil
}

func (p *play) plan(text string, given map[string]string) (*Plan, error) {
	st := &State{}
	if err := json.Unmarshal(p.saved, st); err != nil {
		p.t.Fatal(err)
	}
	d := &Desired{}
	if text != "" {
		tpl, err := template.Parse([]byte(text))
		if err != nil {
			return nil, err
		}
		d.Template = tpl
		if d.Scope, err = tpl.NewScope(template.Environment{StackName: "s"}, given, nil); err != nil {
			return nil, err
		}
		for _, r := range tpl.Resources {
			v, err := d.Scope.Evaluate(r.Properties, "Resources", r.ID, "Properties")
			if err != nil {
				return nil, err
			}
			r.Properties = v.(map[string]any)
			d.Resources = append(d.Resources, r)
		}
	}
	return NewPlan(st, d)
}

func (p *play) deploy(text string, given map[string]string) (steps []string, err error) {
	plan, err := p.plan(text, given)
	if err != nil {
		return nil, err
	}
	a := &Applier{Clients: &Clients{}, Save: p.save, Report: func(s Step) { steps = append(steps, fmt.Sprintf("%s %s", s.Action, s.ID)) }}
	return steps, a.Apply(context.Background(), plan)
}

func (p *play) must(text string, given map[string]string) []string {
	p.t.Helper()
	steps, err := p.deploy(text, given)
	if err != nil {
		p.t.Fatal(err)
	}
	return steps
}

const three = `
Parameters: {Size: {Type: Number, Default: 1}, Note: {Type: String, NoEcho: true, Default: hunter2}}
Resources:
  C: {Type: Test::Thing, Properties: {Note: !GetAtt B.Arn}}
  B: {Type: Test::Thing, Properties: {Note: !Sub '${A}-b', Size: !Ref Size}}
  A: {Type: Test::Thing, Properties: {Size: 3}}
  D: {Type: Test::Thing, DependsOn: C, Properties: {Note: !Ref Note}}
`

func TestResourcesAreMadeInTheOrderOfTheirReferences(t *testing.T) {
	p := newPlay(t)
	if got := p.must(three, nil); !slices.Equal(got, []string{"create A", "create B", "create C", "create D"}) {
		t.Errorf("got %v", got)
	}
	if got := p.must(three, nil); len(got) != 0 {
		t.Errorf("a second time: %v", got)
	}
	if got := p.must(three, map[string]string{"Size": "2"}); !slices.Equal(got, []string{"update B"}) {
		t.Errorf("with another size: %v", got)
	}
	if got := p.must(three, map[string]string{"Note": "other"}); !slices.Equal(got, []string{"update B", "update D"}) {
		t.Errorf("with another secret, and the size of before: %v", got)
	}
	if got := p.must("", nil); !slices.Equal(got, []string{"remove D", "remove C", "remove B", "remove A"}) || len(p.w.things) != 0 {
		t.Errorf("removed: %v; left %v", got, p.w.things)
	}
}

func TestReplacedResourcesGoAfterWhatUsesThem(t *testing.T) {
	p := newPlay(t)
	p.must("Resources: {A: {Type: Test::Thing, Properties: {On: 1}}, B: {Type: Test::Thing, Properties: {Note: !Ref A}}}", nil)
	old := maps.Clone(p.w.things)
	got := p.must("Resources: {A: {Type: Test::Thing, Properties: {On: 2}}, B: {Type: Test::Thing, Properties: {Note: !Ref A}}}", nil)
	if !slices.Equal(got, []string{"replace A", "update B", "remove A"}) || len(p.w.things) != 2 {
		t.Errorf("got %v, and there is %v", got, p.w.things)
	}
	same := 0
	for name := range old {
		if p.w.things[name] != nil {
			same++
		}
	}
	if same != 1 {
		t.Errorf("had %v, have %v", old, p.w.things)
	}
	if _, err := p.deploy("Resources: {A: {Type: Test::Thing, Properties: {Name: x}}}", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.deploy("Resources: {A: {Type: Test::Thing, Properties: {Name: x, On: 3}}}", nil); err == nil || !strings.Contains(err.Error(), "its name x is taken by the one that is there") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsRetainedStays(t *testing.T) {
	p := newPlay(t)
	p.must("Resources: {A: {Type: Test::Thing, DeletionPolicy: Retain}, B: {Type: Test::Thing, UpdateReplacePolicy: Retain, Properties: {On: 1}}}", nil)
	if got := p.must("Resources: {B: {Type: Test::Thing, UpdateReplacePolicy: Retain, Properties: {On: 2}}}", nil); !slices.Equal(got, []string{"replace B", string(Forget) + " B", string(Forget) + " A"}) && !slices.Equal(got, []string{"replace B", string(Forget) + " A", string(Forget) + " B"}) {
		t.Errorf("got %v", got)
	}
	if len(p.w.things) != 3 {
		t.Errorf("there is %v", p.w.things)
	}
}

func TestWhatSomebodyDeletedIsMadeAgain(t *testing.T) {
	p := newPlay(t)
	p.must(three, nil)
	clear(p.w.things)
	p.must(three, map[string]string{"Size": "9"})
	if len(p.w.things) != 1 {
		t.Errorf("there is %v", p.w.things)
	}
	if got := p.must("", nil); len(got) != 4 {
		t.Errorf("removed %v", got)
	}
}

func TestWhatIsNotOfTheStackIsNotTakenOver(t *testing.T) {
	p := newPlay(t)
	p.w.things["x"] = map[string]string{"Note": "somebody's"}
	taken := "Resources: {A: {Type: Test::Thing, Properties: {Name: x}}}"
	for range 2 { // nor by a second attempt
		_, err := p.deploy(taken, nil)
		if code(err) != "ResourceConflictException" || p.w.things["x"]["Note"] != "somebody's" {
			t.Errorf("got %v, and there is %v", err, p.w.things)
		}
	}
	if got := p.must("", nil); len(got) != 0 || p.w.things["x"] == nil {
		t.Errorf("removed: %v, and there is %v", got, p.w.things)
	}
	// Nor by one that had another name before, and can go back to it.
	before := "Resources: {A: {Type: Test::Thing, Properties: {Name: mine}}}"
	p.must(before, nil)
	if _, err := p.deploy(taken, nil); code(err) != "ResourceConflictException" {
		t.Errorf("got %v", err)
	}
	if got := p.must(before, nil); len(got) != 0 || len(p.w.things) != 2 {
		t.Errorf("did %v, and there is %v", got, p.w.things)
	}
}

func TestWhatWasRefusedIsNotOfTheStack(t *testing.T) {
	p := newPlay(t)
	p.w.things["x"] = map[string]string{}
	if _, err := p.deploy("Resources: {A: {Type: Test::Thing, Properties: {Name: y, Note: refused}}}", nil); code(err) != "InvalidParameterValueException" {
		t.Errorf("got %v", err)
	}
	p.w.things["y"] = map[string]string{} // by somebody else
	if got := p.must("", nil); len(got) != 0 || len(p.w.things) != 2 {
		t.Errorf("removed %v, and there is %v", got, p.w.things)
	}
}

// Whoever removes something gets the properties that it was to have.
func TestWhatWasBegunCanBeRemoved(t *testing.T) {
	p := newPlay(t)
	p.w.left = 3 // two states and the call
	if _, err := p.deploy("Resources: {A: {Type: Test::Thing, Properties: {Note: x}}}", nil); !errors.Is(err, errKilled) {
		t.Fatalf("got %v", err)
	}
	p.w.left = -1
	st := &State{}
	if err := json.Unmarshal(p.saved, st); err != nil || len(st.Resources) != 1 || st.Resources[0].Properties["Note"] != "x" {
		t.Fatalf("%v: %s", err, p.saved)
	}
	if got := p.must("", nil); len(got) != 1 || len(p.w.things) != 0 {
		t.Errorf("removed %v, and there is %v", got, p.w.things)
	}
}

func TestPoliciesOfDeletionAreKeptWithoutAnotherChange(t *testing.T) {
	p := newPlay(t)
	p.must("Resources: {A: {Type: Test::Thing}}", nil)
	p.must("Resources: {A: {Type: Test::Thing, DeletionPolicy: Retain}}", nil)
	if got := p.must("", nil); len(got) != 1 || len(p.w.things) != 1 {
		t.Errorf("did %v, and there is %v", got, p.w.things)
	}
}

// Whenever a deployment is killed, the next one brings about what the template
// says, and leaves nothing behind.
func TestDeploymentsThatAreKilledGoOn(t *testing.T) {
	const seeds = 300
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := newPlay(t)
		for range 6 {
			text := randomTemplate(r)
			p.w.left = r.IntN(25)
			if _, err := p.deploy(text, nil); err != nil && !errors.Is(err, errKilled) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if r.IntN(2) == 0 {
				continue // another template meanwhile
			}
			p.w.left = -1
			if _, err := p.deploy(text, nil); err != nil {
				t.Fatalf("seed %d: after a kill: %v", seed, err)
			}
			if plan, err := p.plan(text, nil); err != nil || !plan.Empty() {
				t.Fatalf("seed %d: not done: %v, %v", seed, plan, err)
			}
			if got, want := len(p.w.things), strings.Count(text, thing); got != want {
				t.Fatalf("seed %d: %d things instead of %d for%s\n%v", seed, got, want, text, p.w.things)
			}
		}
		p.w.left = -1
		p.must("", nil)
		if len(p.w.things) != 0 {
			t.Fatalf("seed %d: left behind: %v", seed, p.w.things)
		}
	}
}

func randomTemplate(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("\nResources:\n")
	last := ""
	for _, id := range []string{"A", "B", "C", "D"} {
		if id != "A" && r.IntN(3) == 0 {
			continue
		}
		note := "x"
		if last != "" && r.IntN(2) == 0 {
			note = "!GetAtt " + last + ".Arn"
		}
		fmt.Fprintf(&b, "  %s: {Type: %s, Properties: {Size: %d, On: %d, Note: %s}}\n", id, thing, r.IntN(3), r.IntN(2), note)
		last = id
	}
	return b.String()
}

func TestSecretsAreNeitherKeptNorShown(t *testing.T) {
	p := newPlay(t)
	plan, err := p.plan(three, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plan.Changes {
		for _, d := range c.Properties {
			if s := Show(d.New); strings.Contains(s, "hunter2") || c.ID == "D" && s != "****" {
				t.Errorf("shown: %s", s)
			}
		}
	}
	p.must(three, nil)
	if strings.Contains(string(p.saved), "hunter2") {
		t.Errorf("kept: %s", p.saved)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(p.w.things)), func(m map[string]string) bool { return m["Note"] == "hunter2" }) {
		t.Errorf("the thing has %v", p.w.things)
	}
}

func TestWhatNoPlanCanBeMadeOfIsRefusedAllAtOnce(t *testing.T) {
	p := newPlay(t)
	_, err := p.plan(`
Resources:
  A: {Type: Test::Thing, Properties: {Note: !GetAtt B.Nothing, Size: many}}
  B:
    Type: Test::Thing
    Properties:
      Colour: red
  C: {Type: AWS::SQS::Queue}
  D: {Type: AWS::Lambda::Function, Properties: {Role: r, Runtime: x, Handler: h, Code: {ZipFile: x}, Environment: {Variables: [a]}}}
  E: {Type: AWS::Lambda::Alias}
  F: {Type: AWS::IAM::Role, Properties: {AssumeRolePolicyDocument: {}, Policies: [{PolicyName: x}]}}
  G: {Type: AWS::Lambda::Function, Properties: {Role: r, Runtime: x, PackageType: Image, Code: {ImageUri: x}}}
  H: {Type: AWS::Lambda::Function, Properties: {Role: r, Runtime: x, Handler: h, Code: {ImageUri: x}}}
Outputs:
  O: {Value: !GetAtt B.Other}
`, nil)
	want := []string{
		"line 3: A: Size must be a whole number", "line 3: B (Test::Thing) has no attribute Nothing",
		"line 7: Lapwing does not have the property Colour of B", "line 8: Lapwing does not have resources of type AWS::SQS::Queue (C)",
		"line 9: D: Environment Variables must be a mapping", "line 10: E needs the property FunctionName", "line 10: E needs the property Name",
		"line 10: E needs the property FunctionVersion", "line 11: F: Policies 0 must have PolicyName and PolicyDocument",
		"line 12: G: Runtime is not for PackageType Image", "line 13: H: Code has ImageUri with PackageType Image, and only with it",
		"line 15: B (Test::Thing) has no attribute Other",
	}
	if err == nil {
		t.Fatal("not refused")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("does not say %q:\n%v", w, err)
		}
	}
	if _, err := p.plan("Resources: {A: {Type: Test::Thing, Properties: {Note: !Ref B}}, B: {Type: Test::Thing, DependsOn: A}}", nil); err == nil || !strings.Contains(err.Error(), "depends on itself") {
		t.Errorf("a circle: %v", err)
	}
	if _, err := p.plan("Resources: {A: {Type: Test::Thing, DependsOn: X}}", nil); err == nil || !strings.Contains(err.Error(), "A depends on X, which is not there") {
		t.Errorf("got %v", err)
	}
}
