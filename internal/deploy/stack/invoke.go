package stack

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// lambdaKinds are what says who may invoke a function, and how.
var lambdaKinds = map[string]kind{
	"AWS::Lambda::Permission": {
		properties: "FunctionName* Action* Principal* SourceArn SourceAccount FunctionUrlAuthType InvokedViaFunctionUrl PrincipalOrgID EventSourceToken",
		attributes: []string{"Id"}, limit: 100,
		check: func(c *call) error { _, err := permissionInput(c); return err },
		create: func(ctx context.Context, c *call) error {
			in, err := permissionInput(c)
			if err == nil {
				_, err = c.Lambda.AddPermission(ctx, in)
			}
			return err
		},
		remove: func(ctx context.Context, c *call) error {
			name, qualifier := split(c.str("FunctionName"))
			_, err := c.Lambda.RemovePermission(ctx, &lambda.RemovePermissionInput{FunctionName: &name, Qualifier: qualifier, StatementId: &c.id})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "Id": c.id}, nil
		},
	},
	"AWS::Lambda::Url": {
		properties: "TargetFunctionArn!* Qualifier! AuthType* InvokeMode Cors", attributes: []string{"FunctionArn", "FunctionUrl"}, limit: 64,
		check: func(c *call) error { _, err := urlInput(c); return err },
		create: func(ctx context.Context, c *call) error {
			in, err := urlInput(c)
			if err != nil {
				return err
			}
			c.id = c.urlFunction()
			_, err = c.Lambda.CreateFunctionUrlConfig(ctx, in)
			return err
		},
		update: func(ctx context.Context, c *call) error {
			c.id = c.urlFunction()
			in := &lambda.UpdateFunctionUrlConfigInput{InvokeMode: "BUFFERED"}
			if err := bind(c.only("AuthType", "InvokeMode", "Cors"), in); err != nil {
				return err
			}
			if in.Cors == nil {
				if err := bind(map[string]any{}, &in.Cors); err != nil {
					return err
				}
			}
			in.FunctionName, in.Qualifier = c.urlTarget()
			_, err := c.Lambda.UpdateFunctionUrlConfig(ctx, in)
			return err
		},
		remove: func(ctx context.Context, c *call) error {
			in := &lambda.DeleteFunctionUrlConfigInput{}
			in.FunctionName, in.Qualifier = c.urlTarget()
			_, err := c.Lambda.DeleteFunctionUrlConfig(ctx, in)
			return err
		},
		read: func(ctx context.Context, c *call) (map[string]string, error) {
			in := &lambda.GetFunctionUrlConfigInput{}
			in.FunctionName, in.Qualifier = c.urlTarget()
			out, err := c.Lambda.GetFunctionUrlConfig(ctx, in)
			if err != nil {
				return nil, err
			}
			arn := aws.ToString(out.FunctionArn)
			return map[string]string{"": arn, "FunctionArn": arn, "FunctionUrl": aws.ToString(out.FunctionUrl)}, nil
		},
	},
	"AWS::Lambda::EventInvokeConfig": {
		properties: "FunctionName!* Qualifier!* DestinationConfig MaximumEventAgeInSeconds MaximumRetryAttempts", limit: 64,
		check: func(c *call) error {
			return bind(c.props, &lambda.PutFunctionEventInvokeConfigInput{})
		},
		create: putEventInvoke, update: putEventInvoke,
		remove: func(ctx context.Context, c *call) error {
			in := &lambda.DeleteFunctionEventInvokeConfigInput{}
			if err := bind(c.only("FunctionName", "Qualifier"), in); err != nil {
				return err
			}
			_, err := c.Lambda.DeleteFunctionEventInvokeConfig(ctx, in)
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) { return map[string]string{"": c.id}, nil },
	},
}

func putEventInvoke(ctx context.Context, c *call) error {
	in := &lambda.PutFunctionEventInvokeConfigInput{}
	if err := bind(c.props, in); err != nil {
		return err
	}
	_, err := c.Lambda.PutFunctionEventInvokeConfig(ctx, in)
	return err
}

func permissionInput(c *call) (*lambda.AddPermissionInput, error) {
	in := &lambda.AddPermissionInput{}
	if err := bind(c.props, in); err != nil {
		return nil, err
	}
	in.StatementId = &c.id
	if in.FunctionName != nil {
		name, qualifier := split(*in.FunctionName)
		in.FunctionName, in.Qualifier = &name, qualifier
	}
	return in, nil
}

func urlInput(c *call) (*lambda.CreateFunctionUrlConfigInput, error) {
	in := &lambda.CreateFunctionUrlConfigInput{}
	if err := bind(c.only("AuthType", "InvokeMode", "Cors"), in); err != nil {
		return nil, err
	}
	in.FunctionName, in.Qualifier = c.urlTarget()
	return in, nil
}

// urlTarget is the function of a URL, and the alias if there is one.
func (c *call) urlTarget() (name, qualifier *string) {
	n, q := split(c.str("TargetFunctionArn"))
	if own := c.str("Qualifier"); own != "" {
		q = &own
	}
	return &n, q
}

// urlFunction is the ARN that a URL is known by.
func (c *call) urlFunction() string {
	name, qualifier := c.urlTarget()
	arn := c.arn("lambda", "function:"+*name)
	if qualifier != nil {
		arn += ":" + *qualifier
	}
	return arn
}

// split takes the name or ARN of a function apart into its name and its version
// or alias, nil if there is none.
func split(function string) (name string, qualifier *string) {
	if _, rest, isARN := strings.Cut(function, ":function:"); isARN {
		function = rest
	}
	name, q, qualifies := strings.Cut(function, ":")
	if qualifies {
		qualifier = &q
	}
	return name, qualifier
}
