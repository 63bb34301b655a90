package stack

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// versionKinds are what is published and what points to it.
var versionKinds = map[string]kind{
	"AWS::Lambda::Version": {
		properties: "FunctionName!* Description! CodeSha256! ProvisionedConcurrencyConfig!", attributes: []string{"Version", "FunctionArn"}, limit: 64,
		check: func(c *call) error { _, err := versionInput(c); return err },
		create: func(ctx context.Context, c *call) error {
			in, err := versionInput(c)
			if err != nil {
				return err
			}
			out, err := c.Lambda.PublishVersion(ctx, in)
			if err != nil {
				return err
			}
			c.id, c.made = aws.ToString(out.FunctionArn), true
			if err := c.published(ctx); err != nil {
				return err
			}
			return c.provision(ctx, c.id)
		},
		remove: func(ctx context.Context, c *call) error {
			_, err := c.Lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &c.id})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			i := strings.LastIndex(c.id, ":")
			return map[string]string{"": c.id, "FunctionArn": c.id, "Version": c.id[i+1:]}, nil
		},
	},
	"AWS::Lambda::Alias": {
		properties: "FunctionName!* Name!* FunctionVersion* Description RoutingConfig ProvisionedConcurrencyConfig", attributes: []string{"AliasArn"}, limit: 64,
		check: func(c *call) error { _, err := aliasInput(c); return err },
		create: func(ctx context.Context, c *call) error {
			in, err := aliasInput(c)
			if err != nil {
				return err
			}
			c.id = qualified(c.Clients, *in.FunctionName, *in.Name)
			if _, err := c.Lambda.CreateAlias(ctx, in); err != nil {
				return err
			}
			c.made = true
			return c.provision(ctx, c.id)
		},
		update: updateAlias,
		remove: func(ctx context.Context, c *call) error {
			in := &lambda.DeleteAliasInput{}
			if err := bind(c.only("FunctionName", "Name"), in); err != nil {
				return err
			}
			_, err := c.Lambda.DeleteAlias(ctx, in)
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "AliasArn": c.id}, nil
		},
	},
	"AWS::Lambda::LayerVersion": {
		properties: "Content!* LayerName! Description! CompatibleRuntimes! CompatibleArchitectures! LicenseInfo!", attributes: []string{"LayerVersionArn"},
		name: "LayerName", limit: 140,
		check: func(c *call) error { _, err := layerInput(c); return err },
		create: func(ctx context.Context, c *call) error {
			in, err := layerInput(c)
			if err != nil {
				return err
			}
			src, err := c.source(ctx)
			if err != nil {
				return err
			}
			defer src.release()
			in.Content = &types.LayerVersionContentInput{ZipFile: src.zip, S3Bucket: src.bucket, S3Key: src.key, S3ObjectVersion: src.version}
			out, err := c.Lambda.PublishLayerVersion(ctx, in)
			if err == nil {
				c.id = aws.ToString(out.LayerVersionArn)
			}
			return err
		},
		remove: func(ctx context.Context, c *call) error {
			i := strings.LastIndex(c.id, ":")
			n, err := strconv.ParseInt(c.id[i+1:], 10, 64)
			if err != nil {
				return nil // it was never published
			}
			_, err = c.Lambda.DeleteLayerVersion(ctx, &lambda.DeleteLayerVersionInput{LayerName: aws.String(c.id[:i]), VersionNumber: &n})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "LayerVersionArn": c.id}, nil
		},
	},
}

func versionInput(c *call) (*lambda.PublishVersionInput, error) {
	in := &lambda.PublishVersionInput{}
	if err := bind(c.only("FunctionName", "Description", "CodeSha256"), in); err != nil {
		return nil, err
	}
	_, err := provisioned(c)
	return in, err
}

// published waits until a version is Active, which with SnapStart is when its
// snapshot is there. One that failed is removed, so that the next deployment
// publishes another.
func (c *call) published(ctx context.Context) error {
	w := lambda.NewFunctionActiveV2Waiter(c.Lambda, func(o *lambda.FunctionActiveV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
	})
	err := w.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &c.id}, publishPatience)
	if err == nil || ctx.Err() != nil {
		return err
	}
	err = c.whyNot(ctx, err)
	if _, failed := c.Lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &c.id}); failed != nil {
		return errors.Join(err, failed)
	}
	return err
}

// publishPatience is how long a version with SnapStart may take: its Init has 15
// minutes.
const publishPatience = 20 * time.Minute

// aliasRouting is RoutingConfig as templates have it.
type aliasRouting struct {
	AdditionalVersionWeights []struct {
		FunctionVersion string
		FunctionWeight  float64
	}
}

func aliasInput(c *call) (*lambda.CreateAliasInput, error) {
	in := &lambda.CreateAliasInput{}
	if err := bind(c.only("FunctionName", "Name", "FunctionVersion", "Description"), in); err != nil {
		return nil, err
	}
	var routing aliasRouting
	if err := bind(c.props["RoutingConfig"], &routing); err != nil {
		return nil, within("RoutingConfig", err)
	}
	in.RoutingConfig = &types.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{}}
	for _, w := range routing.AdditionalVersionWeights {
		in.RoutingConfig.AdditionalVersionWeights[w.FunctionVersion] = w.FunctionWeight
	}
	_, err := provisioned(c)
	return in, err
}

func updateAlias(ctx context.Context, c *call) error {
	in, err := aliasInput(c)
	if err != nil {
		return err
	}
	c.id = qualified(c.Clients, *in.FunctionName, *in.Name)
	if c.has("FunctionVersion", "Description", "RoutingConfig") {
		if in.Description == nil {
			in.Description = aws.String("")
		}
		if _, err := c.Lambda.UpdateAlias(ctx, &lambda.UpdateAliasInput{FunctionName: in.FunctionName, Name: in.Name,
			FunctionVersion: in.FunctionVersion, Description: in.Description, RoutingConfig: in.RoutingConfig}); err != nil {
			return err
		}
	}
	if c.has("ProvisionedConcurrencyConfig") {
		return c.provision(ctx, c.id)
	}
	return nil
}

func layerInput(c *call) (*lambda.PublishLayerVersionInput, error) {
	in := &lambda.PublishLayerVersionInput{LayerName: &c.id}
	if err := bind(c.only("LayerName", "Description", "CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo"), in); err != nil {
		return nil, err
	}
	if _, ok := c.props["Content"].(map[string]any); !ok {
		return nil, within("Content", errors.New("must be a mapping or a path"))
	}
	return in, nil
}

// provisioned reads ProvisionedConcurrencyConfig, nil if there is none.
func provisioned(c *call) (*lambda.PutProvisionedConcurrencyConfigInput, error) {
	if c.props["ProvisionedConcurrencyConfig"] == nil {
		return nil, nil
	}
	in := &lambda.PutProvisionedConcurrencyConfigInput{}
	if err := bind(c.props["ProvisionedConcurrencyConfig"], in); err != nil {
		return nil, within("ProvisionedConcurrencyConfig", err)
	}
	return in, nil
}

// provision sets the provisioned concurrency of a version or alias, by its ARN,
// and waits until it is there.
func (c *call) provision(ctx context.Context, arn string) error {
	in, err := provisioned(c)
	if err != nil {
		return err
	}
	i := strings.LastIndex(arn, ":")
	function, qualifier := aws.String(arn[:i]), aws.String(arn[i+1:])
	if in == nil {
		if c.old["ProvisionedConcurrencyConfig"] == nil {
			return nil
		}
		_, err := c.Lambda.DeleteProvisionedConcurrencyConfig(ctx, &lambda.DeleteProvisionedConcurrencyConfigInput{FunctionName: function, Qualifier: qualifier})
		if isMissing(err) {
			return nil
		}
		return err
	}
	in.FunctionName, in.Qualifier = function, qualifier
	if _, err := c.Lambda.PutProvisionedConcurrencyConfig(ctx, in); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		out, err := c.Lambda.GetProvisionedConcurrencyConfig(ctx, &lambda.GetProvisionedConcurrencyConfigInput{FunctionName: function, Qualifier: qualifier})
		switch {
		case err != nil:
			return err
		case out.Status == types.ProvisionedConcurrencyStatusEnumReady:
			return nil
		case out.Status == types.ProvisionedConcurrencyStatusEnumFailed:
			return fmt.Errorf("provisioned concurrency of %s: %s", arn, aws.ToString(out.StatusReason))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// qualified is the ARN of a version or alias of a function, which is given by its
// name or ARN.
func qualified(c *Clients, function, qualifier string) string {
	if !strings.HasPrefix(function, "arn:") {
		function = c.arn("lambda", "function:"+function)
	}
	return function + ":" + qualifier
}
