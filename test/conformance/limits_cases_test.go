package conformance_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// limits are all rows, by what they are about.
var limits = [][]limit{
	nameLimits, createLimits, configurationLimits, codeLimits, versionLimits, concurrencyLimits, policyLimits, invokeLimits,
	layerLimits, urlLimits, eventLimits, provisionedLimits, tenantLimits, signingLimits, runtimeLimits, recursionLimits,
}

var nameLimits = []limit{
	{"function that is not there", get("nobody", nil), missing, codeMissing, "Function not found: arn:aws:lambda:{region}:{account}:function:nobody"},
	{"version that is not there", get(limitsFunction, aws.String("7")), missing, codeMissing, "Function not found: {arn}:7"},
	{"alias that is not there", get(limitsFunction, aws.String("dead")), missing, codeMissing, "Function not found: {arn}:dead"},
	{"ARN of another region", get("arn:aws:lambda:xx-east-9:000000000000:function:f", nil), missing, codeMissing, "Functions from 'xx-east-9' are not reachable in this region ('{region}')"},
	{"two qualifiers", get(limitsFunction+":1", aws.String("2")), badRequest, codeParameter, "The derived qualifier from the function name does not match the specified qualifier."},
	{"name of 65 characters", createNamed(strings.Repeat("n", 65)), badRequest, codeParameter,
		"1 validation error detected: Value '" + strings.Repeat("n", 65) + "' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"},
	{"name of 257 characters", get(strings.Repeat("n", 257), nil), badRequest, codeValidation, "1 validation error detected: Value '" + strings.Repeat("n", 257) + "' at 'functionName' failed to satisfy constraint: …"},
	{"name with a space", get("a b", nil), badRequest, codeValidation, "1 validation error detected: Value 'a b' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
	{"name that is taken", createNamed(limitsFunction), conflicting, codeConflict, "Function already exist: " + limitsFunction},
}

var createLimits = []limit{
	{"no handler", create(func(in *lambda.CreateFunctionInput) { in.Handler = nil }), badRequest, codeParameter, "Runtime and Handler are mandatory parameters for functions created with deployment packages."},
	{"unknown runtime", create(func(in *lambda.CreateFunctionInput) { in.Runtime = "cobol1.x" }), badRequest, codeParameter, "Value cobol1.x at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"runtime of the past", create(func(in *lambda.CreateFunctionInput) { in.Runtime = "nodejs12.x" }), badRequest, codeParameter,
		"The runtime parameter of nodejs12.x is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions."},
	{"role of no account", create(func(in *lambda.CreateFunctionInput) { in.Role = aws.String("admin") }), badRequest, codeValidation, "1 validation error detected: Value 'admin' at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
	{"role of another account", create(func(in *lambda.CreateFunctionInput) { in.Role = aws.String("arn:aws:iam::999999999999:role/r") }), forbidden, "AccessDeniedException", "Cross-account pass role is not allowed."},
	{"51 tags", create(func(in *lambda.CreateFunctionInput) {
		in.Tags = map[string]string{}
		for i := range 51 {
			in.Tags[fmt.Sprint("k", i)] = "v"
		}
	}), badRequest, codeParameter, "Number of tags exceeds resource tag limit."},
	{"two architectures", create(func(in *lambda.CreateFunctionInput) {
		in.Architectures = []types.Architecture{types.ArchitectureX8664, types.ArchitectureArm64}
	}), badRequest, codeValidation, "1 validation error detected: Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length less than or equal to 1"},
	{"description of 257 characters", create(func(in *lambda.CreateFunctionInput) { in.Description = aws.String(strings.Repeat("d", 257)) }), badRequest, codeValidation,
		"1 validation error detected: Value '" + strings.Repeat("d", 257) + "' at 'description' failed to satisfy constraint: Member must have length less than or equal to 256"},
	{"handler of 129 characters", create(func(in *lambda.CreateFunctionInput) { in.Handler = aws.String(strings.Repeat("h", 129)) }), badRequest, codeValidation,
		"1 validation error detected: Value '" + strings.Repeat("h", 129) + "' at 'handler' failed to satisfy constraint: Member must have length less than or equal to 128"},
	{"handler with a space", create(func(in *lambda.CreateFunctionInput) { in.Handler = aws.String("a b") }), badRequest, codeValidation, "1 validation error detected: Value 'a b' at 'handler' failed to satisfy constraint: Member must satisfy regular expression pattern: [^\\s]+"},
}

var configurationLimits = []limit{
	{"memory of 127 MB", create(func(in *lambda.CreateFunctionInput) { in.MemorySize = aws.Int32(127) }), badRequest, codeValidation,
		"1 validation error detected: Value '127' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"},
	{"memory of 10,241 MB", create(func(in *lambda.CreateFunctionInput) { in.MemorySize = aws.Int32(10241) }), badRequest, codeParameter,
		"'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 10240"},
	{"timeout of 0 s", create(func(in *lambda.CreateFunctionInput) { in.Timeout = aws.Int32(0) }), badRequest, codeValidation,
		"1 validation error detected: Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"},
	{"timeout of 901 s", create(func(in *lambda.CreateFunctionInput) { in.Timeout = aws.Int32(901) }), badRequest, codeValidation,
		"1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900"},
	{"/tmp of 511 MB", create(func(in *lambda.CreateFunctionInput) {
		in.EphemeralStorage = &types.EphemeralStorage{Size: aws.Int32(511)}
	}), badRequest, codeValidation,
		"1 validation error detected: Value '511' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value greater than or equal to 512"},
	{"/tmp of 10,241 MB", create(func(in *lambda.CreateFunctionInput) {
		in.EphemeralStorage = &types.EphemeralStorage{Size: aws.Int32(10241)}
	}), badRequest, codeValidation,
		"1 validation error detected: Value '10241' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value less than or equal to 10240"},
	{"environment of more than 4 KB", create(func(in *lambda.CreateFunctionInput) {
		in.Environment = &types.Environment{Variables: map[string]string{"BIG": strings.Repeat("x", 4090)}}
	}), badRequest, codeParameter, "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {\"BIG\":…"},
	{"reserved variable", create(func(in *lambda.CreateFunctionInput) {
		in.Environment = &types.Environment{Variables: map[string]string{"AWS_REGION": "x"}}
	}), badRequest, codeParameter, "Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: AWS_REGION"},
	{"variable of one letter", create(func(in *lambda.CreateFunctionInput) {
		in.Environment = &types.Environment{Variables: map[string]string{"X": "1"}}
	}), badRequest, codeValidation, "1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: […"},
	{"log level of text logs", create(func(in *lambda.CreateFunctionInput) {
		in.LoggingConfig = &types.LoggingConfig{LogFormat: types.LogFormatText, SystemLogLevel: types.SystemLogLevelWarn}
	}), badRequest, codeParameter, `LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.`},
	{"log level that is none", create(func(in *lambda.CreateFunctionInput) {
		in.LoggingConfig = &types.LoggingConfig{LogFormat: types.LogFormatJson, SystemLogLevel: "LOUD"}
	}), badRequest, codeValidation, "1 validation error detected: Value 'LOUD' at 'loggingConfig.systemLogLevel' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"revision that is not the latest", change(func(in *lambda.UpdateFunctionConfigurationInput) {
		in.RevisionId = aws.String("00000000-0000-0000-0000-000000000000")
	}), precondition, "PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"},
}

var codeLimits = []limit{
	{"no code", create(func(in *lambda.CreateFunctionInput) { in.Code = &types.FunctionCode{} }), badRequest, codeParameter, "Please provide a source for function code."},
	{"code that is no zip", create(func(in *lambda.CreateFunctionInput) { in.Code = &types.FunctionCode{ZipFile: []byte("hello")} }), badRequest, codeParameter,
		"Could not unzip uploaded file. Please check your file, then try to upload again."},
	{"empty code", create(func(in *lambda.CreateFunctionInput) { in.Code = &types.FunctionCode{ZipFile: []byte{}} }), badRequest, codeParameter, "Could not unzip uploaded file. Please check your file, then try to upload again."},
	{"code in a bucket that is not there", create(func(in *lambda.CreateFunctionInput) {
		in.Code = &types.FunctionCode{S3Bucket: aws.String("no-such-bucket"), S3Key: aws.String("k")}
	}), badRequest, codeParameter, "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist"},
	{"zip and bucket", create(func(in *lambda.CreateFunctionInput) { in.Code.S3Bucket = aws.String("bucket") }), badRequest, codeParameter,
		"Please do not provide other FunctionCode parameters when providing a ZipFile."},
	{"zip of more than 50 MB", create(func(in *lambda.CreateFunctionInput) {
		in.Code = &types.FunctionCode{ZipFile: make([]byte, 52428801)}
	}), tooLarge, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes"},
	{"unzipped size of more than 250 MB", create(func(in *lambda.CreateFunctionInput) {
		in.Code = &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"index.js": "0", "zeros": strings.Repeat("\x00", 262144000)})}
	}), badRequest, codeParameter, "Unzipped size must be smaller than 262144000 bytes"},
	{"image URI for a zip function", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: aws.String(limitsFunction), ImageUri: aws.String("repository:tag")})
		return err
	}, badRequest, codeParameter, "Please don't provide ImageUri when updating a function with packageType Zip."},
}

var versionLimits = []limit{
	{"deletion of $LATEST", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: aws.String(limitsFunction), Qualifier: aws.String("$LATEST")})
		return err
	}, badRequest, codeParameter, "$LATEST version cannot be deleted without deleting the function."},
	{"deletion of a version with an alias", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: aws.String(limitsFunction), Qualifier: aws.String("1")})
		return err
	}, conflicting, codeConflict, "Unable to delete version because the following aliases reference it: [live]"},
	{"publication of other code", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: aws.String(limitsFunction), CodeSha256: aws.String("other")})
		return err
	}, badRequest, codeParameter, "CodeSHA256 (other) is different from current CodeSHA256 in $LATEST (…"},
	{"alias that exists", alias("live", "1", nil), conflicting, codeConflict, "Alias already exists: {arn}:live"},
	{"alias of digits", alias("12", "1", nil), badRequest, codeValidation, "1 validation error detected: Value '12' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
	{"alias of a version that is not there", alias("new", "9", nil), missing, codeMissing, "Function not found: {arn}:9"},
	{"alias of three versions", alias("new", "1", map[string]float64{"2": 0.1, "3": 0.1}), badRequest, codeParameter, "Number of items in AdditionalVersionWeights cannot be greater than 1"},
	{"weighted alias of $LATEST", alias("new", "$LATEST", map[string]float64{"1": 0.1}), badRequest, codeParameter, "$LATEST is not supported for an alias pointing to more than 1 version"},
	{"alias that is not there", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetAlias(ctx, &lambda.GetAliasInput{FunctionName: aws.String(limitsFunction), Name: aws.String("dead")})
		return err
	}, missing, codeMissing, "Cannot find alias arn: {arn}:dead"},
	{"tags of an alias", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.TagResource(ctx, &lambda.TagResourceInput{Resource: aws.String(functionARN(limitsFunction) + ":live"), Tags: map[string]string{"k": "v"}})
		return err
	}, badRequest, codeParameter, "Tags on function aliases and versions are not supported. Please specify a function ARN."},
}

func alias(name, version string, weights map[string]float64) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.CreateAliasInput{FunctionName: aws.String(limitsFunction), Name: &name, FunctionVersion: &version}
		if weights != nil {
			in.RoutingConfig = &types.AliasRoutingConfiguration{AdditionalVersionWeights: weights}
		}
		_, err := c.CreateAlias(ctx, in)
		return err
	}
}

var concurrencyLimits = []limit{
	{"reservation that leaves less than 100", reserve(901), badRequest, codeParameter, "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."},
	{"negative reservation", reserve(-1), badRequest, codeValidation, "1 validation error detected: Value '-1' at 'reservedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 0"},
	{"reservation of 0 throttles", func(ctx context.Context, c *lambda.Client) error {
		if err := reserve(0)(ctx, c); err != nil {
			return err
		}
		_, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(limitsFunction)})
		if _, undo := c.DeleteFunctionConcurrency(ctx, &lambda.DeleteFunctionConcurrencyInput{FunctionName: aws.String(limitsFunction)}); undo != nil {
			return undo
		}
		return err
	}, manyRequests, "TooManyRequestsException", "Rate Exceeded."},
}

func reserve(n int32) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.PutFunctionConcurrency(ctx, &lambda.PutFunctionConcurrencyInput{FunctionName: aws.String(limitsFunction), ReservedConcurrentExecutions: &n})
		return err
	}
}

var policyLimits = []limit{
	{"no policy", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: aws.String(limitsFunction), Qualifier: aws.String("1")})
		return err
	}, missing, codeMissing, "The resource you requested does not exist."},
	{"principal that is none", permit("s", "nobody"), badRequest, codeParameter, "The provided principal was invalid. Please check the principal and try again."},
	{"statement id with a space", permit("s t", "s3.amazonaws.com"), badRequest, codeValidation, "1 validation error detected: Value 's t' at 'statementId' failed to satisfy constraint: Member must satisfy regular expression pattern: …"},
	{"statement id that is taken", func(ctx context.Context, c *lambda.Client) error {
		if err := permit("taken", "s3.amazonaws.com")(ctx, c); err != nil {
			return err
		}
		return permit("taken", "s3.amazonaws.com")(ctx, c)
	}, conflicting, codeConflict, "The statement id (taken) provided already exists. Please provide a new statement id, or remove the existing statement."},
	{"statement that is not there", func(ctx context.Context, c *lambda.Client) error {
		_, err := c.RemovePermission(ctx, &lambda.RemovePermissionInput{FunctionName: aws.String(limitsFunction), StatementId: aws.String("other")})
		return err
	}, missing, codeMissing, "Statement other is not found in resource policy."},
}

func permit(id, principal string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.AddPermission(ctx, &lambda.AddPermissionInput{
			FunctionName: aws.String(limitsFunction), StatementId: &id, Principal: &principal, Action: aws.String("lambda:InvokeFunction"),
		})
		return err
	}
}

var invokeLimits = []limit{
	{"event that is no JSON", invokeWith(func(in *lambda.InvokeInput) { in.Payload = []byte("{") }), badRequest, "InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: …"},
	{"event of 6 MB", invokeWith(func(in *lambda.InvokeInput) { in.Payload = quoted(6 << 20) }), 0, "", ""},
	{"event of more than 6 MB", invokeWith(func(in *lambda.InvokeInput) { in.Payload = quoted(6<<20 + 1) }), tooLarge, "RequestEntityTooLargeException", "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)"},
	{"client context that is no base64", invokeWith(func(in *lambda.InvokeInput) { in.ClientContext = aws.String("{}") }), badRequest, "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object."},
	{"client context of more than 3,583 bytes", invokeWith(func(in *lambda.InvokeInput) { in.ClientContext = aws.String(strings.Repeat("A", 3584)) }), badRequest, "InvalidRequestContentException", "Client context must be at most 3583 bytes of Base64-encoded JSON."},
	{"invocation type that is none", invokeWith(func(in *lambda.InvokeInput) { in.InvocationType = "Perhaps" }), badRequest, codeValidation, "1 validation error detected: Value 'Perhaps' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: […"},
	{"dry run", invokeWith(func(in *lambda.InvokeInput) { in.InvocationType = types.InvocationTypeDryRun }), 0, "", ""},
	{"function that is not there", invokeWith(func(in *lambda.InvokeInput) { in.FunctionName = aws.String("nobody") }), missing, codeMissing, "Function not found: arn:aws:lambda:{region}:{account}:function:nobody:$LATEST"},
}

// quoted is a JSON string of n bytes.
func quoted(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
