package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"lapwing.dev/lapwing/internal/deploy/archive"
	"lapwing.dev/lapwing/internal/deploy/sam"
	"lapwing.dev/lapwing/internal/deploy/source"
	"lapwing.dev/lapwing/internal/deploy/stack"
	"lapwing.dev/lapwing/internal/deploy/template"
)

// Stack is a template to be deployed.
type Stack struct {
	Path string
	// Name is the stack's; the folder of the template has it if it is empty.
	Name       string
	Parameters map[string]string
	NoBuild    bool
}

var stackName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,127}$`)

// FromTemplate makes a stack what a template says.
func (d *Deployer) FromTemplate(ctx context.Context, s Stack) error {
	t, err := d.read(&s)
	if err != nil {
		return err
	}
	store := stack.NewStore(d.Clients.S3, d.Clients.Account, d.Clients.Region)
	state, err := store.Load(ctx, s.Name)
	if err != nil {
		return err
	}
	if state == nil {
		state = stack.NewState(s.Name, d.Clients.Account, d.Clients.Region)
	}
	if err := askAgain(t, state.NoEcho, s.Parameters); err != nil {
		return err
	}
	env := template.Environment{AccountID: d.Clients.Account, Region: d.Clients.Region, StackName: s.Name, StackID: state.ID}
	scope, err := t.NewScope(env, s.Parameters, state.Parameters)
	if err != nil {
		return in(s.Path, err)
	}
	builder := d.builder()
	defer builder.Close()
	desired, err := d.expand(ctx, s, t, scope, builder)
	if err != nil {
		return in(s.Path, err)
	}
	plan, err := stack.NewPlan(state, desired)
	if err != nil {
		return in(s.Path, err)
	}
	fmt.Fprintf(d.Log, "Stack %s\n", s.Name)
	remember(state, t, scope, s.Parameters)
	if err := d.carryOut(ctx, plan, store.Save, true); err != nil || d.DryRun {
		return err
	}
	if state.Outputs, err = plan.Outputs(); err != nil {
		return in(s.Path, err)
	}
	if err := store.Save(ctx, state); err != nil {
		return err
	}
	d.printOutputs(state.Outputs)
	return nil
}

// askAgain refuses a deployment that would silently take the default of a NoEcho
// parameter in the place of a value that was given before.
func askAgain(t *template.Template, noEcho []string, given map[string]string) error {
	for _, p := range t.Parameters {
		name := p.Name
		if _, ok := given[name]; !ok && slices.Contains(noEcho, name) {
			return fmt.Errorf("parameter %s was given before and is NoEcho, so that its value was not kept: give it again with --parameter %s=…", name, name)
		}
	}
	return nil
}

// remember puts the values of parameters into the state, for the next deployment.
func remember(state *stack.State, t *template.Template, scope *template.Scope, given map[string]string) {
	state.Parameters, state.NoEcho = map[string]string{}, nil
	for _, p := range t.Parameters {
		if v, keep := scope.Parameter(p.Name); keep {
			state.Parameters[p.Name] = v
		} else if _, ok := given[p.Name]; ok {
			state.NoEcho = append(state.NoEcho, p.Name)
		}
	}
}

// read reads the template, and names the stack.
func (d *Deployer) read(s *Stack) (*template.Template, error) {
	b, err := os.ReadFile(s.Path)
	if err != nil {
		return nil, err
	}
	t, err := template.Parse(b)
	if err != nil {
		return nil, in(s.Path, err)
	}
	if s.Name == "" {
		dir := filepath.Dir(s.Path)
		if rest, built := strings.CutSuffix(filepath.ToSlash(dir), ".aws-sam/build"); built {
			dir = filepath.Join(rest, ".")
		}
		if s.Name, err = nameOf(dir, stackName, "stack"); err != nil {
			return nil, err
		}
	}
	if !stackName.MatchString(s.Name) {
		return nil, fmt.Errorf("%q cannot be the name of a stack: a letter, then letters, digits and hyphens, 128 at most", s.Name)
	}
	return t, nil
}

// in says which file an error is about.
func in(path string, err error) error {
	if several, ok := errors.AsType[template.Problems](err); ok {
		lines := make([]string, len(several))
		for i, p := range several {
			lines[i] = path + ": " + p.Text
			if p.Line > 0 {
				lines[i] = fmt.Sprintf("%s:%d: %s", path, p.Line, p.Text)
			}
		}
		return fmt.Errorf("the template cannot be deployed, and nothing was changed:\n%s", strings.Join(lines, "\n"))
	}
	return fmt.Errorf("%s: %w", path, err)
}

// expand turns the template into resources, with packages of their code. All that
// is wrong with the template is found before anything is built.
func (d *Deployer) expand(ctx context.Context, s Stack, t *template.Template, scope *template.Scope, builder *source.Builder) (*stack.Desired, error) {
	managed, err := d.managedPolicies(ctx)
	if err != nil {
		return nil, err
	}
	opts := sam.Options{
		ManagedPolicy: func(name string) (string, bool) { arn, ok := managed[name]; return arn, ok },
		Package:       func(sam.Code) (any, error) { return archive.Package{}, nil },
	}
	x, err := sam.Expand(t, scope, opts)
	checked := (&stack.Desired{Template: t, Scope: scope, Resources: x.Resources, Names: x.Names}).Check()
	if problems := gather(err, checked); problems != nil {
		return nil, problems
	}
	opts.Package = func(c sam.Code) (any, error) {
		fn, err := builder.Build(ctx, d.request(s, c))
		if err != nil {
			return nil, err
		}
		return fn.Package, nil
	}
	x, err = sam.Expand(t, scope, opts)
	return &stack.Desired{Template: t, Scope: scope, Resources: x.Resources, Names: x.Names}, err
}

// gather puts problems of several sources together.
func gather(errs ...error) error {
	var all template.Problems
	for _, err := range errs {
		if several, ok := errors.AsType[template.Problems](err); ok {
			all = append(all, several...)
		} else if err != nil {
			return err
		}
	}
	return all.OrNil()
}

// request asks for a package of code that a template names. What `sam build` has
// built is not built again.
func (d *Deployer) request(s Stack, c sam.Code) source.Request {
	dir := filepath.Dir(s.Path)
	path := filepath.FromSlash(c.Path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	abs, err := filepath.Abs(dir)
	built := err == nil && strings.HasSuffix(filepath.ToSlash(abs), ".aws-sam/build")
	r := source.Request{Path: path, Runtime: c.Runtime, Handler: c.Handler, Architecture: c.Architecture, NoBuild: s.NoBuild || built,
		Name: c.Resource, BuildMethod: c.BuildMethod, BuildProperties: c.BuildProperties, Layer: c.Layer}
	if r.Architecture == "" {
		r.Architecture = d.Architecture
	}
	return r
}

// managedPolicies are the AWS managed policies, by name.
func (d *Deployer) managedPolicies(ctx context.Context) (map[string]string, error) {
	m := map[string]string{}
	pages := iam.NewListPoliciesPaginator(d.Clients.IAM, &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeAws})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range page.Policies {
			m[aws.ToString(p.PolicyName)] = aws.ToString(p.Arn)
		}
	}
	return m, nil
}

// Remove removes a stack and all of its resources but those that are to be
// retained.
func (d *Deployer) Remove(ctx context.Context, name string) error {
	store := stack.NewStore(d.Clients.S3, d.Clients.Account, d.Clients.Region)
	state, err := store.Load(ctx, name)
	if err != nil {
		return err
	}
	if state == nil {
		return fmt.Errorf("there is no stack %s: `lapwing stacks` lists them", name)
	}
	scope, err := d.emptyScope(name)
	if err != nil {
		return err
	}
	plan, err := stack.NewPlan(state, &stack.Desired{Scope: scope})
	if err != nil {
		return err
	}
	if err := d.carryOut(ctx, plan, store.Save, true); err != nil || d.DryRun {
		return err
	}
	return store.Delete(ctx, state)
}

// List prints the stacks.
func (d *Deployer) List(ctx context.Context) error {
	store := stack.NewStore(d.Clients.S3, d.Clients.Account, d.Clients.Region)
	names, err := store.List(ctx)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		fmt.Fprintln(d.Log, "There are no stacks. `lapwing deploy template.yaml` makes one.")
		return nil
	}
	w := tabwriter.NewWriter(d.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRESOURCES\tDEPLOYED")
	for _, name := range names {
		state, err := store.Load(ctx, name)
		if err != nil {
			return err
		}
		if state != nil {
			fmt.Fprintf(w, "%s\t%d\t%s\n", name, len(state.Resources), state.Updated.Format(time.RFC3339))
		}
	}
	return w.Flush()
}
