// Package stack makes resources what a template says they are. It knows the types
// of resources, keeps the state of each stack, plans how it becomes what is
// desired, and carries the plan out through the AWS APIs, step by step, so that a
// deployment that was interrupted goes on where it stopped.
//
// Types, properties, return values and what must be replaced when it changes are
// those of the CloudFormation resource type reference.
package stack

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Clients are the clients of the services whose resources stacks have.
type Clients struct {
	Lambda          *lambda.Client
	IAM             *iam.Client
	S3              *s3.Client
	Logs            *cloudwatchlogs.Client
	CloudFront      *cloudfront.Client
	ACM             *acm.Client
	Kinesis         *kinesis.Client
	Account, Region string
}

// NewClients makes the clients.
func NewClients(cfg aws.Config, account string) *Clients {
	return &Clients{Lambda: lambda.NewFromConfig(cfg), IAM: iam.NewFromConfig(cfg), Logs: cloudwatchlogs.NewFromConfig(cfg),
		CloudFront: cloudfront.NewFromConfig(cfg), ACM: acm.NewFromConfig(cfg), Kinesis: kinesis.NewFromConfig(cfg),
		S3:      s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }),
		Account: account, Region: cfg.Region}
}

func (c *Clients) arn(service, resource string) string {
	region := c.Region
	if service == "iam" {
		region = ""
	}
	return fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, region, c.Account, resource)
}

// kind is a resource type.
type kind struct {
	// properties are those that Lapwing has, separated by spaces: with * if it
	// must be there, with ! if another value makes another resource.
	properties string
	// attributes are what Fn::GetAtt finds.
	attributes []string
	// name is the property that names the resource, "" if no property does;
	// limit is the longest name that is made.
	name  string
	limit int
	// lower is for names that may have no capitals.
	lower bool

	// check tries what can be tried without a server: it reads the properties
	// into the inputs of the calls.
	check func(c *call) error
	// create may replace c.id where AWS makes the id.
	create func(ctx context.Context, c *call) error
	// update is nil for what can only be replaced.
	update func(ctx context.Context, c *call) error
	// remove gets the properties in their recorded form.
	remove func(ctx context.Context, c *call) error
	// read returns the attributes, and what Ref stands for under "".
	read func(ctx context.Context, c *call) (map[string]string, error)
}

// call is one resource in work.
type call struct {
	*Clients
	id         string
	props, old map[string]any
	// changed are the names of properties that changed, nil for all.
	changed map[string]bool
	// made tells that create has made the resource, though perhaps not finished
	// it. A create of one call needs not say so.
	made bool
}

// has tells whether one of the properties is new or changed.
func (c *call) has(names ...string) bool {
	return c.changed == nil || slices.ContainsFunc(names, func(n string) bool { return c.changed[n] })
}

// str is a property that is a text, "" if it is not there.
func (c *call) str(name string) string {
	s, _ := text(c.props[name])
	return s
}

// only returns some of the properties, to be bound.
func (c *call) only(names ...string) map[string]any {
	m := map[string]any{}
	for _, n := range names {
		if v, ok := c.props[n]; ok {
			m[n] = v
		}
	}
	return m
}

// kinds are the resource types that stacks have.
var kinds map[string]kind

func init() {
	kinds = map[string]kind{}
	for _, some := range []map[string]kind{functionKinds, versionKinds, lambdaKinds, roleKinds, policyKinds, storageKinds, certificateKinds, cdnKinds, edgeFunctionKinds, streamKinds} {
		maps.Copy(kinds, some)
	}
}

// replaces tells whether another value of a property makes another resource.
func (k kind) replaces(property string) bool {
	if k.update == nil {
		return true
	}
	for p := range strings.FieldsSeq(k.properties) {
		if name := strings.TrimRight(p, "!*"); name == property {
			return strings.Contains(p, "!")
		}
	}
	return false
}

// physicalName is the name that a resource gets, or its statement id or the like
// where it has none.
func (k kind) physicalName(st *State, id string, generation int, props map[string]any) string {
	if name, _ := text(props[k.name]); name != "" {
		return name
	}
	name := st.physicalName(id, generation, k.limit)
	if k.lower {
		name = strings.ToLower(name)
	}
	return name
}

// finding is a problem of a resource: a text with %s for its name, and the
// property that it is about.
type finding struct{ property, text string }

// problems lists what is wrong with the properties of a resource.
func (k kind) problems(props map[string]any) (list []finding) {
	names := map[string]bool{}
	for p := range strings.FieldsSeq(k.properties) {
		name := strings.TrimRight(p, "!*")
		names[name] = true
		if strings.Contains(p, "*") && props[name] == nil {
			list = append(list, finding{"", "%s needs the property " + name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		if !names[name] {
			list = append(list, finding{name, "Lapwing does not have the property " + name + " of %s"})
		}
	}
	if len(list) > 0 {
		return list
	}
	if err := k.check(&call{Clients: &Clients{}, props: props}); err != nil {
		property, _, _ := strings.Cut(err.Error(), " ")
		list = append(list, finding{property, "%s: " + strings.ReplaceAll(err.Error(), "%", "%%")})
	}
	return list
}

// unknownType says that a type is not there, and what to do instead.
func unknownType(typ, id string) string {
	s := fmt.Sprintf("Lapwing does not have resources of type %s (%s)", typ, id)
	switch {
	case strings.HasPrefix(typ, "AWS::Serverless::Api"), strings.HasPrefix(typ, "AWS::Serverless::HttpApi"), strings.HasPrefix(typ, "AWS::ApiGateway"):
		s += ": it has no API Gateway; FunctionUrlConfig gives a function an HTTP address"
	case strings.HasPrefix(typ, "AWS::Serverless::"):
		s += "; if the template has Transform: AWS::Serverless-2016-10-31, it has AWS::Serverless::Function and LayerVersion"
	}
	return s
}
