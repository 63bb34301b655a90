package conformance_test

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// The rows below are about what functions can be given beside code and
// configuration.

var layerLimits = []limit{
	{"six layers", create(withLayers("{arns}:layer:a:1", "{arns}:layer:b:1", "{arns}:layer:c:1", "{arns}:layer:d:1", "{arns}:layer:e:1", "{arns}:layer:f:1")), badRequest, codeParameter, "Cannot reference more than 5 layers."},
	{"two versions of a layer", create(withLayers("{layer}:1", "{layer}:2")), badRequest, codeParameter,
		"Two different versions of the same layer are not allowed to be referenced in the same function. {layer}:1 and {layer}:2 are versions of the same layer."},
	{"a layer twice", create(withLayers("{layer}:1", "{layer}:1")), badRequest, codeParameter,
		"Two different versions of the same layer are not allowed to be referenced in the same function. {layer}:1 and {layer}:1 are versions of the same layer."},
	{"layer that is not there", create(withLayers("{arns}:layer:nothing:1")), badRequest, codeParameter, "Layer version {arns}:layer:nothing:1 does not exist."},
	{"version of a layer that is not there", create(withLayers("{layer}:9")), badRequest, codeParameter, "Layer version {layer}:9 does not exist."},
	{"layer without a version", create(withLayers("{layer}")), badRequest, codeValidation, "1 validation error detected: Value '[{layer}]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: […"},
	{"layer of another Region", create(withLayers("arn:aws:lambda:xx-east-9:{account}:layer:l:1")), badRequest, codeParameter, "Layers are not in the same region as the function. Layers are expected to be in region {region}."},
	{"layer of another account", create(withLayers("arn:aws:lambda:{region}:999999999999:layer:l:1")), forbidden, "AccessDeniedException", "User: arn:aws:…"},
	{"code and layers of more than 250 MB together", func(ctx context.Context, c *lambda.Client) error {
		layer := uniqueLayer()
		if err := publishZeros(layer, 250<<20-1)(ctx, c); err != nil {
			return err
		}
		err := create(withLayers("{arns}:layer:"+layer+":1"))(ctx, c)
		return errors.Join(deleteLayer(ctx, c, layer, 1), err)
	}, badRequest, codeParameter, "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is 2621…"},
	{"layer of 250 MB", publishZeros("refused", 250<<20), badRequest, codeParameter, "Unzipped size must be smaller than 262144000 bytes"},
	{"layer that is no zip", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{LayerName: aws.String("refused"), Content: &types.LayerVersionContentInput{ZipFile: []byte("hello")}})
		return err
	}, badRequest, codeParameter, "Could not unzip uploaded file. Please check your file, then try to upload again."},
	{"layer with a description of 257 characters", publishLayer("refused", nil, func(in *lambda.PublishLayerVersionInput) { in.Description = aws.String(strings.Repeat("d", 257)) }), badRequest, codeValidation,
		"1 validation error detected: Value '" + strings.Repeat("d", 257) + "' at 'description' failed to satisfy constraint: Member must have length less than or equal to 256"},
	{"layer with a licence of 513 characters", publishLayer("refused", nil, func(in *lambda.PublishLayerVersionInput) { in.LicenseInfo = aws.String(strings.Repeat("l", 513)) }), badRequest, codeValidation,
		"1 validation error detected: Value '" + strings.Repeat("l", 513) + "' at 'licenseInfo' failed to satisfy constraint: Member must have length less than or equal to 512"},
	{"version 0 of a layer", getLayer("{layer}", 0), badRequest, codeParameter, "Layer Version Cannot be less than 1"},
	{"retrieval of a layer that is not there", getLayer("nothing", 1), missing, codeMissing, "The resource you requested does not exist."},
	{"permission for more than to get a layer", permitLayer(1, "*"), badRequest, codeValidation, "1 validation error detected: Value '*' at 'action' failed to satisfy constraint: Member must satisfy regular expression pattern: lambda:GetLayerVersion"},
	{"permission for a version of a layer that is not there", permitLayer(9, "lambda:GetLayerVersion"), missing, codeMissing, "Layer version {layer}:9 does not exist."},
}

func withLayers(layers ...string) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) {
		for _, l := range layers {
			in.Layers = append(in.Layers, words.Replace(l))
		}
	}
}

func publishLayer(name string, files map[string]string, spoil ...func(*lambda.PublishLayerVersionInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.PublishLayerVersionInput{LayerName: &name, Content: &types.LayerVersionContentInput{ZipFile: harness.Zip(files)}}
		for _, f := range spoil {
			f(in)
		}
		_, err := c.PublishLayerVersion(ctx, in)
		return err
	}
}

// publishZeros publishes a layer with a file of n bytes.
func publishZeros(name string, n int) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		return publishLayer(name, map[string]string{"zeros": strings.Repeat("\x00", n)})(ctx, c)
	}
}

func getLayer(name string, version int64) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetLayerVersion(ctx, &lambda.GetLayerVersionInput{LayerName: aws.String(words.Replace(name)), VersionNumber: &version})
		return err
	}
}

func permitLayer(version int64, action string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.AddLayerVersionPermission(ctx, &lambda.AddLayerVersionPermissionInput{
			LayerName: aws.String(words.Replace("{layer}")), VersionNumber: &version, StatementId: aws.String("s"), Action: &action, Principal: aws.String("*"),
		})
		return err
	}
}

// aliasOnly is the refusal of a URL for anything but a function or an alias.
const aliasOnly = "' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: ((?!^\\d+$)^[0-9a-zA-Z-_]+$)"

var urlLimits = []limit{
	{"URL of a version", createURL(onURL("1")), badRequest, codeValidation, "1 validation error detected: Value '1" + aliasOnly},
	{"URL of a version that is not there", createURL(onURL("9")), badRequest, codeValidation, "1 validation error detected: Value '9" + aliasOnly},
	{"URL of $LATEST", createURL(onURL("$LATEST")), badRequest, codeValidation, "1 validation error detected: Value '$LATEST" + aliasOnly},
	{"URL of an alias that is not there", createURL(onURL("dead")), missing, codeMissing, "Function does not exist"},
	{"URL of a function that is not there", createURL(func(in *lambda.CreateFunctionUrlConfigInput) { in.FunctionName = aws.String("nobody") }), missing, codeMissing, "Function does not exist"},
	{"URL that exists", func(ctx context.Context, c *lambda.Client) error {
		if err := createURL()(ctx, c); err != nil {
			return err
		}
		err := createURL()(ctx, c)
		_, undo := c.DeleteFunctionUrlConfig(ctx, &lambda.DeleteFunctionUrlConfigInput{FunctionName: aws.String(limitsFunction)})
		return errors.Join(undo, err)
	}, conflicting, codeConflict, "Failed to create function url config for [functionArn = {arn}]. Error message:  FunctionUrlConfig exists for this Lambda function"},
	{"URL for who knows whom", createURL(func(in *lambda.CreateFunctionUrlConfigInput) { in.AuthType = "SOME" }), badRequest, codeValidation,
		"1 validation error detected: Value 'SOME' at 'authType' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"URL with an invoke mode that is none", createURL(func(in *lambda.CreateFunctionUrlConfigInput) { in.InvokeMode = "UNKNOWN" }), badRequest, codeValidation,
		"1 validation error detected: Value 'UNKNOWN' at 'invokeMode' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"CORS for more than a day", createURL(func(in *lambda.CreateFunctionUrlConfigInput) { in.Cors = &types.Cors{MaxAge: aws.Int32(86401)} }), badRequest, codeValidation,
		"1 validation error detected: Value '86401' at 'cors.maxAge' failed to satisfy constraint: Member must have value less than or equal to 86400"},
	{"CORS of 101 origins", createURL(func(in *lambda.CreateFunctionUrlConfigInput) {
		in.Cors = &types.Cors{AllowOrigins: make([]string, 101)}
		for i := range in.Cors.AllowOrigins {
			in.Cors.AllowOrigins[i] = "https://example.com"
		}
	}), badRequest, codeValidation, "1 validation error detected: Value '[https://example.com, …"},
	{"CORS method of 7 letters", createURL(func(in *lambda.CreateFunctionUrlConfigInput) {
		in.Cors = &types.Cors{AllowMethods: []string{"OPTIONS"}}
	}), badRequest, codeValidation,
		"1 validation error detected: Value '[OPTIONS]' at 'cors.allowMethods' failed to satisfy constraint: Member must satisfy constraint: […"},
	{"no URL", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{FunctionName: aws.String(limitsFunction)})
		return err
	}, missing, codeMissing, "The resource you requested does not exist."},
	{"update of no URL", updateURL(limitsFunction), missing, codeMissing, "The resource you requested does not exist."},
	{"update of the URL of a function that is not there", updateURL("nobody"), missing, codeMissing, "Function does not exist"},
}

func createURL(spoil ...func(*lambda.CreateFunctionUrlConfigInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.CreateFunctionUrlConfigInput{FunctionName: aws.String(limitsFunction), AuthType: types.FunctionUrlAuthTypeAwsIam}
		for _, f := range spoil {
			f(in)
		}
		_, err := c.CreateFunctionUrlConfig(ctx, in)
		return err
	}
}

func onURL(qualifier string) func(*lambda.CreateFunctionUrlConfigInput) {
	return func(in *lambda.CreateFunctionUrlConfigInput) { in.Qualifier = &qualifier }
}

func updateURL(name string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.UpdateFunctionUrlConfig(ctx, &lambda.UpdateFunctionUrlConfigInput{FunctionName: &name, AuthType: types.FunctionUrlAuthTypeNone})
		return err
	}
}

var eventLimits = []limit{
	{"event configuration of nothing", putEvents(func(*lambda.PutFunctionEventInvokeConfigInput) {}), badRequest, codeParameter, "You must specify at least one of error handling or destination setting."},
	{"3 retries", putEvents(func(in *lambda.PutFunctionEventInvokeConfigInput) { in.MaximumRetryAttempts = aws.Int32(3) }), badRequest, codeValidation,
		"1 validation error detected: Value '3' at 'maximumRetryAttempts' failed to satisfy constraint: Member must have value less than or equal to 2"},
	{"maximum age of 59 s", putEvents(func(in *lambda.PutFunctionEventInvokeConfigInput) { in.MaximumEventAgeInSeconds = aws.Int32(59) }), badRequest, codeValidation,
		"1 validation error detected: Value '59' at 'maximumEventAgeInSeconds' failed to satisfy constraint: Member must have value greater than or equal to 60"},
	{"maximum age of more than 6 h", putEvents(func(in *lambda.PutFunctionEventInvokeConfigInput) { in.MaximumEventAgeInSeconds = aws.Int32(21601) }), badRequest, codeValidation,
		"1 validation error detected: Value '21601' at 'maximumEventAgeInSeconds' failed to satisfy constraint: Member must have value less than or equal to 21600"},
	{"destination that is no ARN", putEvents(onFailure("nowhere")), badRequest, codeValidation, "1 validation error detected: Value 'nowhere' at 'destinationConfig.onFailure.destination' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
	{"destination in a service that has none", putEvents(onFailure("arn:aws:iam::123456789012:role/r")), badRequest, codeParameter,
		"The provided destination config DestinationConfig(onSuccess=null, onFailure=OnFailure(destination=arn:aws:iam::123456789012:role/r)) is invalid."},
	{"destination that is not there", putEvents(onFailure("{arns}:function:nobody")), badRequest, codeParameter, "The destination ARN {arns}:function:nobody is invalid."},
	{"function as its own destination", putEvents(onFailure("{arn}")), badRequest, codeParameter, "You can't specify the function as a destination for itself."},
	{"queue as a destination", putEvents(onFailure("arn:aws:sqs:us-east-1:123456789012:q")), badRequest, codeParameter, "DestinationConfig OnFailure with the service sqs is not supported by Lapwing."},
	{"event configuration of a function that is not there", putEvents(func(in *lambda.PutFunctionEventInvokeConfigInput) {
		in.FunctionName, in.MaximumRetryAttempts = aws.String("nobody"), aws.Int32(1)
	}), missing, codeMissing, "The function doesn't exist."},
	{"event configuration of an alias that is not there", putEvents(func(in *lambda.PutFunctionEventInvokeConfigInput) {
		in.Qualifier, in.MaximumRetryAttempts = aws.String("dead"), aws.Int32(1)
	}), missing, codeMissing, "The function doesn't exist."},
	{"no event configuration", getEvents(limitsFunction, nil), missing, codeMissing, "The function {arn}:$LATEST doesn't have an EventInvokeConfig"},
	{"no event configuration of an alias", getEvents(limitsFunction, aws.String("live")), missing, codeMissing, "The function {arn}:live doesn't have an EventInvokeConfig"},
	{"no event configuration and no function", getEvents("nobody", nil), missing, codeMissing, "The function {arns}:function:nobody:$LATEST doesn't have an EventInvokeConfig"},
	{"event of more than 1 MB", invokeWith(func(in *lambda.InvokeInput) {
		in.InvocationType, in.Payload = types.InvocationTypeEvent, quoted(1<<20+1)
	}), tooLarge, "RequestEntityTooLargeException", "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)"},
	{"event to be queued that is no JSON", invokeWith(func(in *lambda.InvokeInput) {
		in.InvocationType, in.Payload = types.InvocationTypeEvent, []byte("{")
	}), badRequest, "InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: …"},
	{"event of 1 MB", invokeWith(func(in *lambda.InvokeInput) {
		in.InvocationType, in.Payload = types.InvocationTypeEvent, quoted(1<<20)
	}), 0, "", ""},
	{"event for a function that is not there", invokeWith(func(in *lambda.InvokeInput) {
		in.InvocationType, in.FunctionName = types.InvocationTypeEvent, aws.String("nobody")
	}), missing, codeMissing, "Function not found: {arns}:function:nobody:$LATEST"},
	{"dead letters to a queue", change(func(in *lambda.UpdateFunctionConfigurationInput) {
		in.DeadLetterConfig = &types.DeadLetterConfig{TargetArn: aws.String("arn:aws:sqs:us-east-1:123456789012:q")}
	}), badRequest, codeParameter, "DeadLetterConfig with a target other than a Lambda function is not supported by Lapwing."},
}

// putEvents is a row's call of PutFunctionEventInvokeConfig.
func putEvents(spoil func(*lambda.PutFunctionEventInvokeConfigInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.PutFunctionEventInvokeConfigInput{FunctionName: aws.String(limitsFunction)}
		spoil(in)
		_, err := c.PutFunctionEventInvokeConfig(ctx, in)
		return err
	}
}

func onFailure(arn string) func(*lambda.PutFunctionEventInvokeConfigInput) {
	return func(in *lambda.PutFunctionEventInvokeConfigInput) {
		in.DestinationConfig = &types.DestinationConfig{OnFailure: &types.OnFailure{Destination: aws.String(words.Replace(arn))}}
	}
}

func getEvents(name string, qualifier *string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetFunctionEventInvokeConfig(ctx, &lambda.GetFunctionEventInvokeConfigInput{FunctionName: &name, Qualifier: qualifier})
		return err
	}
}

var provisionedLimits = []limit{
	{"provisioned concurrency of $LATEST", provision("$LATEST", 1), badRequest, codeParameter, "Provisioned Concurrency Configs cannot be applied to unpublished function versions."},
	{"provisioned concurrency of 0", provision("1", 0), badRequest, codeValidation, "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 1"},
	{"provisioned concurrency of a version that is not there", provision("9", 1), missing, codeMissing, "Function not found: {arn}:9"},
	{"provisioned concurrency of an alias that is not there", provision("dead", 1), missing, codeMissing, "Cannot find alias arn: {arn}:dead"},
	{"more provisioned concurrency than the account has", provision("1", 1001), badRequest, codeParameter, "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."},
	{"provisioned concurrency that leaves less than 100", provision("1", 901), badRequest, codeParameter, "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."},
	{"more provisioned concurrency than is reserved", func(ctx context.Context, c *lambda.Client) error {
		if err := reserve(2)(ctx, c); err != nil {
			return err
		}
		err := provision("1", 3)(ctx, c)
		_, undo := c.DeleteFunctionConcurrency(ctx, &lambda.DeleteFunctionConcurrencyInput{FunctionName: aws.String(limitsFunction)})
		return errors.Join(undo, err)
	}, badRequest, codeParameter, "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"},
	{"less reserved than provisioned", provisioned(reserve(1)), badRequest, codeParameter, " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."},
	{"provisioned concurrency of a version and its alias", provisioned(provision("1", 1)), conflicting, codeConflict, "Version is pointed by a Provisioned Concurrency alias"},
	{"no provisioned concurrency", getProvisioned("1"), missing, "ProvisionedConcurrencyConfigNotFoundException", "No Provisioned Concurrency Config found for this function"},
	{"what provisioned concurrency $LATEST has", getProvisioned("$LATEST"), badRequest, codeParameter, "The function resource provided must be an alias or a published version."},
}

func provision(qualifier string, n int32) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PutProvisionedConcurrencyConfig(ctx, &lambda.PutProvisionedConcurrencyConfigInput{
			FunctionName: aws.String(limitsFunction), Qualifier: &qualifier, ProvisionedConcurrentExecutions: &n,
		})
		return err
	}
}

// provisioned makes a call while the alias has provisioned concurrency of 2.
func provisioned(call func(context.Context, *lambda.Client) error) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		if err := provision("live", 2)(ctx, c); err != nil {
			return err
		}
		err := call(ctx, c)
		_, undo := c.DeleteProvisionedConcurrencyConfig(ctx, &lambda.DeleteProvisionedConcurrencyConfigInput{FunctionName: aws.String(limitsFunction), Qualifier: aws.String("live")})
		return errors.Join(undo, err)
	}
}

func getProvisioned(qualifier string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetProvisionedConcurrencyConfig(ctx, &lambda.GetProvisionedConcurrencyConfigInput{FunctionName: aws.String(limitsFunction), Qualifier: &qualifier})
		return err
	}
}

var tenantLimits = []limit{
	{"tenant isolation that is none", create(func(in *lambda.CreateFunctionInput) {
		in.TenancyConfig = &types.TenancyConfig{TenantIsolationMode: "SOME"}
	}), badRequest, codeValidation, "1 validation error detected: Value 'SOME' at 'tenancyConfig.tenantIsolationMode' failed to satisfy constraint: Member must satisfy enum value set: [PER_TENANT]"},
	{"invocation for no tenant", invokeWith(func(in *lambda.InvokeInput) { in.FunctionName = aws.String(limitsTenants) }), badRequest, codeParameter,
		"The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."},
	{"event for no tenant", invokeWith(func(in *lambda.InvokeInput) {
		in.FunctionName, in.InvocationType = aws.String(limitsTenants), types.InvocationTypeEvent
	}), badRequest, codeParameter, "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."},
	{"tenant of a function without", invokeWith(func(in *lambda.InvokeInput) { in.TenantId = aws.String("t") }), badRequest, codeParameter,
		"The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again."},
	{"tenant of 257 characters", invokeWith(func(in *lambda.InvokeInput) {
		in.FunctionName, in.TenantId = aws.String(limitsTenants), aws.String(strings.Repeat("t", 257))
	}), badRequest, codeValidation, "1 validation error detected: Value '" + strings.Repeat("t", 257) + "' at 'tenantId' failed to satisfy constraint: Member must have length less than or equal to 256"},
	{"URL of a function with tenants", createURL(func(in *lambda.CreateFunctionUrlConfigInput) { in.FunctionName = aws.String(limitsTenants) }), badRequest, codeParameter,
		"Function URLs are not supported for functions with tenant isolation."},
	{"provisioned concurrency of a function with tenants", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PutProvisionedConcurrencyConfig(ctx, &lambda.PutProvisionedConcurrencyConfigInput{
			FunctionName: aws.String(limitsTenants), Qualifier: aws.String("1"), ProvisionedConcurrentExecutions: aws.Int32(1),
		})
		return err
	}, badRequest, codeParameter, "Provisioned concurrency is not supported for functions with tenant isolation."},
}

// nowhereSigning is a code signing configuration that is not there.
const nowhereSigning = "{arns}:code-signing-config:csc-0123456789abcdef0"

var signingLimits = []limit{
	{"code signing configuration that is not there", getSigning(nowhereSigning), missing, codeMissing,
		"The Lambda code signing configuration " + nowhereSigning + " can not be found."},
	{"code signing configuration that is no ARN", getSigning("mine"), badRequest, codeValidation,
		"1 validation error detected: Value 'mine' at 'codeSigningConfigArn' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
	{"function with a code signing configuration that is not there", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PutFunctionCodeSigningConfig(ctx, &lambda.PutFunctionCodeSigningConfigInput{
			FunctionName: aws.String(limitsFunction), CodeSigningConfigArn: aws.String(words.Replace(nowhereSigning)),
		})
		return err
	}, missing, "CodeSigningConfigNotFoundException", "The code signing configuration cannot be found. Check that the provided configuration is not deleted: " + nowhereSigning + "."},
	{"new function with a code signing configuration that is not there", create(func(in *lambda.CreateFunctionInput) {
		in.CodeSigningConfigArn = aws.String(words.Replace(nowhereSigning))
	}), missing, "CodeSigningConfigNotFoundException", "The code signing configuration cannot be found. Check that the provided configuration is not deleted: " + nowhereSigning + "."},
	{"code signing by nobody", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.CreateCodeSigningConfig(ctx, &lambda.CreateCodeSigningConfigInput{AllowedPublishers: &types.AllowedPublishers{SigningProfileVersionArns: []string{}}})
		return err
	}, badRequest, codeValidation, "1 validation error detected: Value '[]' at 'allowedPublishers.signingProfileVersionArns' failed to satisfy constraint: Member must have length greater than or equal to 1"},
	{"new function that must be signed", func(ctx context.Context, c *lambda.Client) error {
		out, err := c.CreateCodeSigningConfig(ctx, &lambda.CreateCodeSigningConfigInput{
			AllowedPublishers: &types.AllowedPublishers{SigningProfileVersionArns: []string{
				"arn:aws:signer:us-east-1:123456789012:/signing-profiles/p/0123456789",
			}},
			CodeSigningPolicies: &types.CodeSigningPolicies{UntrustedArtifactOnDeployment: types.CodeSigningPolicyEnforce},
		})
		if err != nil {
			return err
		}
		arn := out.CodeSigningConfig.CodeSigningConfigArn
		err = create(func(in *lambda.CreateFunctionInput) { in.CodeSigningConfigArn = arn })(ctx, c)
		_, undo := c.DeleteCodeSigningConfig(ctx, &lambda.DeleteCodeSigningConfigInput{CodeSigningConfigArn: arn})
		return errors.Join(undo, err)
	}, badRequest, "CodeVerificationFailedException", "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not configured to accept. Check the provided signature for refused."},
}

func getSigning(arn string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetCodeSigningConfig(ctx, &lambda.GetCodeSigningConfigInput{CodeSigningConfigArn: aws.String(words.Replace(arn))})
		return err
	}
}

var runtimeLimits = []limit{
	{"runtime version by hand without a version", manageRuntime(func(in *lambda.PutRuntimeManagementConfigInput) { in.UpdateRuntimeOn = types.UpdateRuntimeOnManual }), badRequest, codeParameter,
		"RuntimeVersionArn is required if UpdateRuntimeOn is Manual, and must not be given otherwise."},
	{"runtime version by hand that is not here", manageRuntime(func(in *lambda.PutRuntimeManagementConfigInput) {
		in.UpdateRuntimeOn = types.UpdateRuntimeOnManual
		in.RuntimeVersionArn = aws.String("arn:aws:lambda:us-east-1::runtime:" + strings.Repeat("0", 64))
	}), badRequest, codeParameter, "The runtime version arn:aws:lambda:us-east-1::runtime:" + strings.Repeat("0", 64) + " is not installed on this host, which serves nodejs22.x with …"},
	{"runtime update at any time", manageRuntime(func(in *lambda.PutRuntimeManagementConfigInput) { in.UpdateRuntimeOn = "Sunday" }), badRequest, codeValidation,
		"1 validation error detected: Value 'Sunday' at 'updateRuntimeOn' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"runtime of an alias", manageRuntime(func(in *lambda.PutRuntimeManagementConfigInput) {
		in.UpdateRuntimeOn, in.Qualifier = types.UpdateRuntimeOnAuto, aws.String("live")
	}), badRequest, codeParameter, "This operation is permitted on Lambda functions and versions only. Aliases do not support this operation. Please specify a function name or a version."},
	{"runtime of a function that is not there", manageRuntime(func(in *lambda.PutRuntimeManagementConfigInput) {
		in.UpdateRuntimeOn, in.FunctionName = types.UpdateRuntimeOnAuto, aws.String("nobody")
	}), missing, codeMissing, "Function not found: {arns}:function:nobody"},
}

func manageRuntime(spoil func(*lambda.PutRuntimeManagementConfigInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.PutRuntimeManagementConfigInput{FunctionName: aws.String(limitsFunction)}
		spoil(in)
		_, err := c.PutRuntimeManagementConfig(ctx, in)
		return err
	}
}

var recursionLimits = []limit{
	{"recursion that is neither allowed nor not", loop(limitsFunction, "InvalidValue"), badRequest, codeValidation, "1 validation error detected: Value 'InvalidValue' at 'recursiveLoop' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"recursion of a function that is not there", loop("nobody", types.RecursiveLoopAllow), missing, codeMissing, "Function not found: {arns}:function:nobody"},
	{"recursion of a version", loop(limitsFunction+":1", types.RecursiveLoopAllow), badRequest, codeValidation, "1 validation error detected: Value 'limits:1' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
}

func loop(name string, mode types.RecursiveLoop) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PutFunctionRecursionConfig(ctx, &lambda.PutFunctionRecursionConfigInput{FunctionName: &name, RecursiveLoop: mode})
		return err
	}
}
