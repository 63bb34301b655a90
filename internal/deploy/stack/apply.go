package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// Applier carries out plans.
type Applier struct {
	Clients *Clients
	// Save keeps the state after each step, and before it what is about to be
	// done.
	Save func(context.Context, *State) error
	// Report is told of each step when it is done.
	Report func(Step)
}

// Step is a step of a deployment that was done.
type Step struct {
	Change
	Took time.Duration
}

// Failure tells at what step a deployment stopped, and why.
type Failure struct {
	Change
	Err error
}

func (f *Failure) Unwrap() error { return f.Err }

func (f *Failure) Error() string {
	why := f.Err.Error()
	if api, ok := errors.AsType[smithy.APIError](f.Err); ok {
		why = api.ErrorCode() + ": " + api.ErrorMessage()
	}
	return fmt.Sprintf("%s %s (%s): %s", f.Action, f.ID, f.Type, why)
}

// Apply carries out a plan. When it fails, the state says what was done, and the
// next plan goes on from there.
func (a *Applier) Apply(ctx context.Context, p *Plan) error {
	if err := a.Save(ctx, p.state); err != nil {
		return err
	}
	for _, r := range p.order {
		v, err := p.desired.Scope.Settle(r.Properties, p.lookup(nil))
		if err != nil {
			return fmt.Errorf("%s: %w", r.ID, err)
		}
		settled := v.(map[string]any)
		if names := template.References(settled); len(names) > 0 {
			return fmt.Errorf("%s: the value of %s is not known", r.ID, strings.Join(names, ", "))
		}
		change := p.compare(r, settled)
		if err := a.step(ctx, p, r, settled, change); err != nil {
			return &Failure{change, err}
		}
	}
	if err := a.cleanUp(ctx, p); err != nil {
		return err
	}
	a.reorder(p)
	return a.Save(ctx, p.state)
}

// step makes or changes one resource.
func (a *Applier) step(ctx context.Context, p *Plan, r template.Resource, settled map[string]any, change Change) error {
	st, begin := p.state, time.Now()
	rec := st.find(r.ID)
	if change.Action == none {
		if rec.Retain != r.Retain || rec.RetainReplaced != r.RetainReplaced {
			rec.Retain, rec.RetainReplaced = r.Retain, r.RetainReplaced
			return a.Save(ctx, st)
		}
		return nil
	}
	k := kinds[r.Type]
	// An earlier deployment began or made it, or would have: nobody else has a name
	// that is made here.
	known := rec != nil || k.name != "" && settled[k.name] == nil
	replaced := (*Record)(nil)
	if change.Action == Replace {
		if name, _ := settled[k.name].(string); name != "" && name == rec.PhysicalID {
			return fmt.Errorf("it must be replaced, and its name %s is taken by the one that is there: give it another %s", name, k.name)
		}
		rec.Replaced = true
		replaced, rec, known = rec, nil, k.name != "" && settled[k.name] == nil
	}
	begun := rec != nil
	if rec == nil {
		rec = &Record{ID: r.ID, Type: r.Type, Generation: st.nextGeneration(r.ID)}
		st.Resources = append(st.Resources, rec)
	}
	old, changed := rec.Properties, changedProperties(change)
	if rec.Unfinished {
		changed = nil // nobody knows what of it was done
	}
	rec.Retain, rec.RetainReplaced, rec.Unfinished = r.Retain, r.RetainReplaced, true
	if change.Action != Update {
		rec.PhysicalID = k.physicalName(st, r.ID, rec.Generation, settled)
		rec.Properties = st.record(settled).(map[string]any) // for its removal
	}
	if err := a.Save(ctx, st); err != nil {
		return err
	}
	c := &call{Clients: a.Clients, id: rec.PhysicalID, props: settled, old: old, changed: changed}
	err := a.make(ctx, k, c, change.Action, known)
	if err != nil && !begun && !c.made && isRefusal(err) {
		// Nothing was made. What has the name is somebody else's, and must
		// neither be taken over nor removed.
		st.drop(rec)
		if replaced != nil {
			replaced.Replaced = false
		}
		return errors.Join(err, a.Save(ctx, st))
	}
	if err != nil {
		return err
	}
	if rec.Attributes, err = k.read(ctx, c); err != nil {
		return err
	}
	rec.PhysicalID, rec.Properties, rec.Unfinished = c.id, st.record(settled).(map[string]any), false
	if err := a.Save(ctx, st); err != nil {
		return err
	}
	change.PhysicalID = rec.PhysicalID
	a.Report(Step{change, time.Since(begin)})
	return nil
}

func changedProperties(c Change) map[string]bool {
	m := map[string]bool{}
	for _, d := range c.Properties {
		m[top(d.Path)] = true
	}
	return m
}

// make creates or updates a resource. What an interrupted deployment has made is
// taken over, and what somebody has deleted is made again.
func (a *Applier) make(ctx context.Context, k kind, c *call, action Action, known bool) error {
	if action == Update && k.update != nil {
		err := k.update(ctx, c)
		if !isMissing(err) {
			return err
		}
		c.changed = nil
	}
	err := k.create(ctx, c)
	if !known || !isConflict(err) {
		return err
	}
	c.changed = nil // everything
	if k.update != nil {
		return k.update(ctx, c)
	}
	if err := k.remove(ctx, c); err != nil {
		return err
	}
	return k.create(ctx, c)
}

// cleanUp removes what has left the template or was replaced, the last made first.
func (a *Applier) cleanUp(ctx context.Context, p *Plan) error {
	st := p.state
	for _, rec := range slices.Backward(slices.Clone(st.Resources)) {
		if !rec.Replaced && p.desired.find(rec.ID) != nil {
			continue
		}
		begin, action := time.Now(), Remove
		shared := slices.ContainsFunc(st.Resources, func(other *Record) bool {
			return other != rec && other.Type == rec.Type && other.PhysicalID == rec.PhysicalID
		})
		if rec.Replaced && rec.RetainReplaced || !rec.Replaced && rec.Retain || shared {
			action = Forget
		}
		k, ok := kinds[rec.Type]
		if !ok {
			return fmt.Errorf("%s: this Lapwing does not know the type %s", rec.ID, rec.Type)
		}
		if action == Remove {
			rec.Unfinished = true
			if err := a.Save(ctx, st); err != nil {
				return err
			}
			c := &call{Clients: a.Clients, id: rec.PhysicalID, props: rec.Properties}
			if err := k.remove(ctx, c); err != nil && !isMissing(err) {
				return &Failure{Change{ID: rec.ID, Type: rec.Type, PhysicalID: rec.PhysicalID, Action: action}, err}
			}
		}
		st.drop(rec)
		if err := a.Save(ctx, st); err != nil {
			return err
		}
		a.Report(Step{Change{ID: rec.ID, Type: rec.Type, PhysicalID: rec.PhysicalID, Action: action}, time.Since(begin)})
	}
	return nil
}

// reorder brings the records into the order of the plan, in which they can be
// removed backwards.
func (a *Applier) reorder(p *Plan) {
	rank := map[string]int{}
	for i, r := range p.order {
		rank[r.ID] = i
	}
	slices.SortStableFunc(p.state.Resources, func(a, b *Record) int { return rank[a.ID] - rank[b.ID] })
}

// Outputs evaluates the outputs of the template; those of NoEcho parameters are
// hidden.
func (p *Plan) Outputs() (map[string]string, error) {
	out := map[string]string{}
	for _, o := range p.desired.Template.Outputs {
		if !p.desired.Scope.Holds(o.Condition) {
			continue
		}
		v, err := p.desired.Scope.Evaluate(o.Value, "Outputs", o.Name, "Value")
		if err == nil {
			v, err = p.desired.Scope.Settle(v, p.lookup(nil))
		}
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", o.Name, err)
		}
		s, ok := text(v)
		if !ok {
			return nil, fmt.Errorf("output %s is not a text", o.Name)
		}
		if _, secret := v.(template.Secret); secret {
			s = "****"
		}
		out[o.Name] = s
	}
	return out, nil
}

// PhysicalID returns what a resource of the template became, "" if it is not
// there.
func (s *State) PhysicalID(id string) string {
	if r := s.find(id); r != nil {
		return r.PhysicalID
	}
	return ""
}

// Attribute returns an attribute of a resource, "" if it has none.
func (s *State) Attribute(id, name string) string {
	if r := s.find(id); r != nil {
		return r.Attributes[name]
	}
	return ""
}

// Adopt enters a resource that was made without the stack.
func (s *State) Adopt(id, typ, physicalID string, properties map[string]any, attributes map[string]string) {
	s.Resources = append(s.Resources, &Record{ID: id, Type: typ, PhysicalID: physicalID,
		Properties: s.record(properties).(map[string]any), Attributes: maps.Clone(attributes)})
}

// isMissing tells of an answer that a resource is not there.
func isMissing(err error) bool {
	switch code(err) {
	case "ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "ProvisionedConcurrencyConfigNotFoundException", "RepositoryNotFoundException",
		"NoSuchFunctionExists", "EntityNotFound", "NoSuchRealtimeLogConfig":
		return true
	}
	return false
}

// isConflict tells of an answer that a resource is there already.
func isConflict(err error) bool {
	switch code(err) {
	case "ResourceConflictException", "EntityAlreadyExists", "BucketAlreadyOwnedByYou", "ResourceAlreadyExistsException", "RepositoryAlreadyExistsException",
		"FunctionAlreadyExists", "RealtimeLogConfigAlreadyExists", "ResourceInUseException": // the last of data streams
		return true
	}
	return false
}

// isRefusal tells of an answer that a call did nothing, other than one that did
// not come or says that something went wrong half-way.
func isRefusal(err error) bool {
	answer, ok := errors.AsType[*awshttp.ResponseError](err)
	return ok && answer.HTTPStatusCode() >= 400 && answer.HTTPStatusCode() < 500
}

// errNotEmpty says what to do about a bucket that cannot be removed.
var errNotEmpty = errors.New("the bucket is not empty: empty it (aws s3 rm --recursive), or give it DeletionPolicy: Retain")

// StatementID is the id that a permission of the stack gets.
func (s *State) StatementID(id string) string {
	return kinds["AWS::Lambda::Permission"].physicalName(s, id, 0, nil)
}
