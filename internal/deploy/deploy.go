// Package deploy is `lapwing deploy`: a function from a folder of source code, or
// a stack from a CloudFormation or SAM template. It is a client of the AWS APIs,
// like any other.
//
// Its parts: source makes packages of folders, template and sam read templates,
// stack compares what is there with what is wanted and changes it.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/deploy/source"
	"lapwing.dev/lapwing/internal/deploy/stack"
	"lapwing.dev/lapwing/internal/deploy/template"
)

// Deployer deploys.
type Deployer struct {
	Clients *stack.Clients
	// Newest finds the newest runtime of a language that functions can have
	// here; see source.Builder.
	Newest func(language string) string
	// Runtime tells why functions cannot have a runtime here, nil if they can.
	Runtime func(id string) error
	// Architecture is that of functions which do not say.
	Architecture string
	Out          io.Writer // what was deployed
	Log          io.Writer // what is being done
	// Confirm asks before anything is changed. It gets leave or not.
	Confirm func(Consequences) (bool, error)
	// DryRun only shows what would be done.
	DryRun bool
}

// Consequences tell what a deployment would do.
type Consequences struct {
	Changes int
	// Loses tells that something is removed or replaced.
	Loses bool
	// Template tells of a deployment from a template, or of a stack's removal.
	Template bool
}

// errDeclined tells that Confirm gave no leave.
var errDeclined = errors.New("nothing was changed")

func (d *Deployer) builder() *source.Builder {
	return &source.Builder{Newest: d.Newest, Say: func(s string) { fmt.Fprintf(d.Log, "building: %s\n", s) }}
}

// carryOut shows a plan, asks for leave, and carries it out, unless it is a dry
// run. An empty plan is carried out too: what no service knows of, such as a
// DeletionPolicy, is in the state only.
func (d *Deployer) carryOut(ctx context.Context, p *stack.Plan, save func(context.Context, *stack.State) error, fromTemplate bool) error {
	if err := d.checkRuntimes(p); err != nil {
		return err
	}
	show(d.Log, p)
	if d.DryRun {
		return nil
	}
	if err := d.leave(p, fromTemplate); err != nil {
		return err
	}
	steps := 0
	a := stack.Applier{Clients: d.Clients, Save: save, Report: func(s stack.Step) {
		steps++
		fmt.Fprintf(d.Log, "%s %s (%s) in %.1f s\n", past[s.Action], s.ID, s.Type, s.Took.Round(100*time.Millisecond).Seconds())
	}}
	if err := a.Apply(ctx, p); err != nil {
		return fmt.Errorf("%w\n%d of %d changes were made. Deploy again to go on from there", err, steps, len(p.Changes))
	}
	return nil
}

// checkRuntimes finds out before anything is changed that a function is to get a
// runtime which is not there.
func (d *Deployer) checkRuntimes(p *stack.Plan) error {
	var problems []error
	for _, c := range p.Changes {
		for _, diff := range c.Properties {
			id, isText := diff.New.(string)
			if c.Type != "AWS::Lambda::Function" || diff.Path != "Runtime" || !isText {
				continue
			}
			if err := d.Runtime(id); err != nil {
				problems = append(problems, fmt.Errorf("%s cannot have its runtime, and nothing was changed: %w", c.ID, err))
			}
		}
	}
	return errors.Join(problems...)
}

// leave asks whether a plan may be carried out.
func (d *Deployer) leave(p *stack.Plan, fromTemplate bool) error {
	if p.Empty() {
		return nil
	}
	what := Consequences{Changes: len(p.Changes), Template: fromTemplate}
	what.Loses = slices.ContainsFunc(p.Changes, func(c stack.Change) bool { return c.Action == stack.Remove || c.Action == stack.Replace })
	ok, err := d.Confirm(what)
	if err == nil && !ok {
		err = errDeclined
	}
	return err
}

var past = map[stack.Action]string{stack.Create: "created", stack.Update: "updated", stack.Replace: "replaced", stack.Remove: "removed", stack.Forget: "left as it is:"}

// emptyScope evaluates references where there is no template.
func (d *Deployer) emptyScope(name string) (*template.Scope, error) {
	return (&template.Template{}).NewScope(template.Environment{AccountID: d.Clients.Account, Region: d.Clients.Region, StackName: name}, nil, nil)
}

// marks begin the lines of a shown plan.
var marks = map[stack.Action]string{stack.Create: "+", stack.Update: "~", stack.Replace: "±", stack.Remove: "-", stack.Forget: "="}

// show prints a plan, property by property.
func show(w io.Writer, p *stack.Plan) {
	if p.Empty() {
		fmt.Fprintln(w, "Nothing to change.")
	}
	for _, c := range p.Changes {
		fmt.Fprintf(w, "%s %s %s (%s)", marks[c.Action], c.Action, c.ID, c.Type)
		if c.PhysicalID != "" && c.PhysicalID != c.ID {
			fmt.Fprintf(w, " %s", c.PhysicalID)
		}
		fmt.Fprintln(w)
		for _, diff := range c.Properties {
			switch {
			case diff.Old == nil:
				fmt.Fprintf(w, "    %s: %s\n", diff.Path, shown(diff.New))
			case diff.New == nil:
				fmt.Fprintf(w, "    %s: %s → (gone)\n", diff.Path, shown(diff.Old))
			default:
				fmt.Fprintf(w, "    %s: %s → %s\n", diff.Path, shown(diff.Old), shown(diff.New))
			}
		}
		if c.Action == stack.Update && len(c.Properties) == 0 {
			fmt.Fprintln(w, "    (an interrupted deployment may have left it half done)")
		}
	}
}

// shown prints a value in one line of the plan.
func shown(v any) string {
	s := stack.Show(v)
	const most = 160
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// nameOf makes the name of a function or stack from that of a folder.
func nameOf(path string, allowed *regexp.Regexp, what string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	name := filepath.Base(abs)
	if !allowed.MatchString(name) {
		return "", fmt.Errorf("the folder's name %q cannot be the name of a %s: give one with --name", name, what)
	}
	return name, nil
}

// printOutputs prints the outputs of a stack.
func (d *Deployer) printOutputs(outputs map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(outputs)) {
		fmt.Fprintf(d.Out, "%s = %s\n", name, outputs[name])
	}
}
