package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/deploy/sam"
	"lapwing.dev/lapwing/internal/deploy/source"
	"lapwing.dev/lapwing/internal/deploy/stack"
	"lapwing.dev/lapwing/internal/deploy/template"
)

// Folder is a function to be deployed from a folder. What is not given is found
// out, or stays as it is.
type Folder struct {
	Path, Name       string
	Runtime, Handler string
	Role             string // an ARN
	MemoryMB         int32  // 0: not given
	TimeoutSec       int32  // 0: not given
	Env              map[string]string
	URL              string // public, iam, none, or "": not given
	NoBuild          bool
}

// The resources of a function from a folder.
const (
	functionID = "Function"
	roleID     = "Role"
	urlID      = "Url"
	publicID   = "UrlPublicPermissions" // and the second permission that AWS asks for:
	invokeID   = "URLInvokeAllowPublicAccess"
)

var functionName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// FromFolder deploys a function from a folder, and makes or changes nothing else
// than it: its role if it needs one, and its URL.
func (d *Deployer) FromFolder(ctx context.Context, f Folder) (err error) {
	if f.Name == "" {
		if f.Name, err = nameOf(f.Path, functionName, "function"); err != nil {
			return err
		}
	}
	if !functionName.MatchString(f.Name) {
		return fmt.Errorf("%q cannot be the name of a function: letters, digits, hyphens and underscores, 64 at most", f.Name)
	}
	live, err := d.live(ctx, f.Name)
	if err != nil {
		return err
	}
	builder := d.builder()
	defer builder.Close()
	request := source.Request{Path: f.Path, Runtime: f.Runtime, Handler: f.Handler, Architecture: d.Architecture, NoBuild: f.NoBuild}
	if request.Runtime == "" {
		request.Runtime, _ = live.properties["Runtime"].(string)
	}
	if request.Handler == "" {
		request.Handler, _ = live.properties["Handler"].(string)
	}
	fn, err := builder.Build(ctx, request)
	if err != nil {
		return err
	}
	scope, err := d.emptyScope(f.Name)
	if err != nil {
		return err
	}
	plan, err := stack.NewPlan(live.state, &stack.Desired{Scope: scope, Resources: d.wanted(f, fn, live)})
	if err != nil {
		return err
	}
	if err := d.carryOut(ctx, plan, func(context.Context, *stack.State) error { return nil }, false); err != nil || d.DryRun {
		return err
	}
	fmt.Fprintf(d.Out, "%s\n", d.arn(f.Name))
	if url := live.state.Attribute(urlID, "FunctionUrl"); url != "" {
		fmt.Fprintf(d.Out, "%s\n", url)
	}
	fmt.Fprintf(d.Log, "Invoke it: lapwing invoke %s\n", f.Name)
	return nil
}

func (d *Deployer) arn(name string) string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", d.Clients.Region, d.Clients.Account, name)
}

// liveFunction is what is there of a function.
type liveFunction struct {
	properties map[string]any // nil: there is no function
	state      *stack.State
	// role tells that the role which is made for the function is there.
	role bool
	// url is the AuthType of its URL, "" if there is none.
	url types.FunctionUrlAuthType
	// urlProperties are the URL's.
	urlProperties map[string]any
}

// live asks what is there of a function, and makes of it a state that a plan can
// start from.
func (d *Deployer) live(ctx context.Context, name string) (*liveFunction, error) {
	l := &liveFunction{state: stack.NewState(name, d.Clients.Account, d.Clients.Region)}
	// The names of permissions come from the state's id.
	l.state.ID = "folder/" + name
	if err := d.liveRole(ctx, l, name); err != nil {
		return nil, err
	}
	out, err := d.Clients.Lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name})
	if isCode(err, "ResourceNotFoundException") {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if out.Configuration.PackageType == types.PackageTypeImage {
		return nil, fmt.Errorf("function %s is made from a container image: give another --name", name)
	}
	l.properties = functionProperties(out.Configuration)
	l.state.Adopt(functionID, "AWS::Lambda::Function", name, l.properties, map[string]string{"": name, "Arn": d.arn(name)})
	return l, d.liveURL(ctx, l, name)
}

// roleName is the role that is made for a function. Those of functions whose
// names are too long for that are told apart by a hash.
func roleName(function string) string {
	const suffix, most = "-role", 64 // IAM's limit
	if len(function)+len(suffix) <= most {
		return function + suffix
	}
	sum := sha256.Sum256([]byte(function))
	hash := "-" + hex.EncodeToString(sum[:4])
	return function[:most-len(suffix)-len(hash)] + hash + suffix
}

func (d *Deployer) liveRole(ctx context.Context, l *liveFunction, name string) error {
	out, err := d.Clients.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String(roleName(name))})
	if isCode(err, "NoSuchEntity") {
		return nil
	}
	if err != nil {
		return err
	}
	l.role = true
	l.state.Adopt(roleID, "AWS::IAM::Role", roleName(name), roleProperties(name), map[string]string{"": roleName(name), "Arn": aws.ToString(out.Role.Arn)})
	return nil
}

func roleProperties(function string) map[string]any {
	return map[string]any{"RoleName": roleName(function), "AssumeRolePolicyDocument": sam.AssumeRole(), "ManagedPolicyArns": []any{sam.BasicExecution},
		"Description": "Made by lapwing deploy for the function " + function}
}

func (d *Deployer) liveURL(ctx context.Context, l *liveFunction, name string) error {
	out, err := d.Clients.Lambda.GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{FunctionName: &name})
	if err == nil {
		l.url = out.AuthType
		l.urlProperties = map[string]any{"TargetFunctionArn": name, "AuthType": string(out.AuthType), "InvokeMode": string(out.InvokeMode)}
		if out.Cors != nil {
			l.urlProperties["Cors"] = fields(out.Cors)
		}
		l.state.Adopt(urlID, "AWS::Lambda::Url", d.arn(name), l.urlProperties, map[string]string{"": d.arn(name), "FunctionArn": d.arn(name), "FunctionUrl": aws.ToString(out.FunctionUrl)})
	} else if !isCode(err, "ResourceNotFoundException") {
		return err
	}
	policy, err := d.Clients.Lambda.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &name})
	if isCode(err, "ResourceNotFoundException") {
		return nil
	}
	if err != nil {
		return err
	}
	var document struct{ Statement []struct{ Sid string } }
	if err := json.Unmarshal([]byte(aws.ToString(policy.Policy)), &document); err != nil {
		return fmt.Errorf("the policy of %s: %w", name, err)
	}
	for _, id := range []string{publicID, invokeID} {
		sid := l.state.StatementID(id)
		if slices.ContainsFunc(document.Statement, func(s struct{ Sid string }) bool { return s.Sid == sid }) {
			l.state.Adopt(id, "AWS::Lambda::Permission", sid, permission(id, name), map[string]string{"": sid, "Id": sid})
		}
	}
	return nil
}

// permission is one of the two that a public URL needs.
func permission(id, function string) map[string]any {
	if id == publicID {
		return map[string]any{"FunctionName": function, "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"}
	}
	return map[string]any{"FunctionName": function, "Action": "lambda:InvokeFunction", "Principal": "*", "InvokedViaFunctionUrl": true}
}

// functionProperties are the properties of a function that is there, as a template
// would have them.
func functionProperties(c *types.FunctionConfiguration) map[string]any {
	p := map[string]any{"FunctionName": *c.FunctionName, "Runtime": string(c.Runtime), "Handler": aws.ToString(c.Handler), "Role": aws.ToString(c.Role),
		"MemorySize": int64(aws.ToInt32(c.MemorySize)), "Timeout": int64(aws.ToInt32(c.Timeout)), "Code": map[string]any{"Package": "sha256:" + aws.ToString(c.CodeSha256)}}
	if s := aws.ToString(c.Description); s != "" {
		p["Description"] = s
	}
	if c.Environment != nil && len(c.Environment.Variables) > 0 {
		p["Environment"] = map[string]any{"Variables": secrets(c.Environment.Variables)}
	}
	if len(c.Layers) > 0 {
		var list []any
		for _, l := range c.Layers {
			list = append(list, aws.ToString(l.Arn))
		}
		p["Layers"] = list
	}
	if len(c.Architectures) > 0 {
		p["Architectures"] = []any{string(c.Architectures[0])}
	}
	if c.EphemeralStorage != nil {
		p["EphemeralStorage"] = fields(c.EphemeralStorage)
	}
	if c.DeadLetterConfig != nil {
		p["DeadLetterConfig"] = fields(c.DeadLetterConfig)
	}
	if c.TracingConfig != nil {
		p["TracingConfig"] = fields(c.TracingConfig)
	}
	if c.SnapStart != nil && c.SnapStart.ApplyOn == types.SnapStartApplyOnPublishedVersions {
		p["SnapStart"] = map[string]any{"ApplyOn": string(c.SnapStart.ApplyOn)}
	}
	if c.LoggingConfig != nil {
		p["LoggingConfig"] = fields(c.LoggingConfig)
	}
	return p
}

// fields returns the fields of an SDK structure that are set, as a template would
// have them.
func fields(v any) map[string]any {
	var m map[string]any
	if b, err := json.Marshal(v); err != nil || json.Unmarshal(b, &m) != nil {
		return nil // never: these are structures of texts, numbers and lists
	}
	maps.DeleteFunc(m, func(_ string, one any) bool { return one == nil || one == "" })
	return m
}

// secrets are environment variables, whose values are not shown: people keep
// passwords there.
func secrets(env map[string]string) map[string]any {
	m := make(map[string]any, len(env))
	for k, v := range env {
		m[k] = template.Secret(v)
	}
	return m
}

// wanted are the resources that are to be there: what is there already, and what
// was asked for.
func (d *Deployer) wanted(f Folder, fn *source.Function, live *liveFunction) []template.Resource {
	props := map[string]any{"FunctionName": f.Name}
	if live.properties != nil {
		props = maps.Clone(live.properties)
	}
	props["Code"] = map[string]any{"Package": fn.Package}
	props["Runtime"], props["Handler"] = fn.Runtime, fn.Handler
	if f.MemoryMB != 0 {
		props["MemorySize"] = int64(f.MemoryMB)
	}
	if f.TimeoutSec != 0 {
		props["Timeout"] = int64(f.TimeoutSec)
	}
	if len(f.Env) > 0 {
		all := map[string]any{}
		if env, ok := props["Environment"].(map[string]any); ok {
			maps.Copy(all, env["Variables"].(map[string]any))
		}
		maps.Copy(all, secrets(f.Env))
		props["Environment"] = map[string]any{"Variables": all}
	}
	var list []template.Resource
	if f.Role != "" {
		props["Role"] = f.Role
	} else if live.properties == nil {
		props["Role"] = template.GetAtt(roleID, "Arn")
	}
	if live.role || f.Role == "" && live.properties == nil {
		list = append(list, template.Resource{ID: roleID, Type: "AWS::IAM::Role", Properties: roleProperties(f.Name)})
	}
	list = append(list, template.Resource{ID: functionID, Type: "AWS::Lambda::Function", Properties: props})
	return append(list, urlWanted(f, live)...)
}

func urlWanted(f Folder, live *liveFunction) (list []template.Resource) {
	auth := live.url
	switch f.URL {
	case "public":
		auth = types.FunctionUrlAuthTypeNone
	case "iam":
		auth = types.FunctionUrlAuthTypeAwsIam
	case "none":
		auth = ""
	}
	if auth == "" {
		return nil
	}
	props := map[string]any{"TargetFunctionArn": f.Name}
	if live.urlProperties != nil {
		props = maps.Clone(live.urlProperties)
	}
	props["AuthType"] = string(auth)
	depends := []string{functionID}
	list = append(list, template.Resource{ID: urlID, Type: "AWS::Lambda::Url", Properties: props, DependsOn: depends})
	for _, id := range []string{publicID, invokeID} {
		// A public URL that somebody made without us has its permissions.
		if f.URL == "public" || live.state.PhysicalID(id) != "" && auth == types.FunctionUrlAuthTypeNone {
			list = append(list, template.Resource{ID: id, Type: "AWS::Lambda::Permission", Properties: permission(id, f.Name), DependsOn: depends})
		}
	}
	return list
}

// isCode tells whether an AWS error has a code.
func isCode(err error, code string) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && strings.EqualFold(api.ErrorCode(), code)
}
