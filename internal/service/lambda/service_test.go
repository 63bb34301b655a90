package lambda

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

func TestNewFunctionShowsLambdasDefaults(t *testing.T) {
	f := newFixture(t)
	out, err := f.CreateFunction(f.ctx(), f.input("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if out.State != api.StatePending || *out.StateReason != "The function is being created." || out.StateReasonCode != "Creating" || out.LastUpdateStatus != "" {
		t.Errorf("new function: %s %v %s %s", out.State, out.StateReason, out.StateReasonCode, out.LastUpdateStatus)
	}
	active := f.settled("hello")
	if active.State != api.StateActive || active.StateReason != nil || active.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("afterwards: %+v", active)
	}
	if *active.RevisionId == *out.RevisionId {
		t.Error("becoming Active must change RevisionId")
	}
	for name, pair := range map[string][2]any{
		"FunctionArn":       {*active.FunctionArn, arnPrefix + "hello"},
		"Version":           {*active.Version, "$LATEST"},
		"Description":       {*active.Description, ""},
		"Timeout":           {*active.Timeout, int32(3)},
		"MemorySize":        {*active.MemorySize, int32(128)},
		"EphemeralStorage":  {*active.EphemeralStorage.Size, int32(512)},
		"PackageType":       {active.PackageType, api.PackageTypeZip},
		"Architectures":     {fmt.Sprint(active.Architectures), "[x86_64]"},
		"TracingConfig":     {string(active.TracingConfig.Mode), "PassThrough"},
		"SnapStart":         {string(active.SnapStart.ApplyOn) + string(active.SnapStart.OptimizationStatus), "NoneOff"},
		"LogFormat":         {string(active.LoggingConfig.LogFormat), "Text"},
		"LogGroup":          {*active.LoggingConfig.LogGroup, "/aws/lambda/hello"},
		"LastModified":      {*active.LastModified, "2026-11-24T01:02:03.456+0000"},
		"RuntimeVersionArn": {*active.RuntimeVersionConfig.RuntimeVersionArn, "arn:aws:lambda:" + testRegion + "::runtime:nodejs22.x"},
		"Environment":       {active.Environment == nil, true},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	if got, err := f.readImage(f.Service.entries.get(functionKey{testRegion, "hello"}).routes[""].target.version.Code, "index.js"); err != nil || string(got) != "// hello" {
		t.Errorf("code: %q %v", got, err)
	}
}

func TestFunctionNamesInAllForms(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	for _, c := range []struct {
		name, qualifier string
		arn             string // want
		code, message   string // or this error
	}{
		{name: "hello", arn: arnPrefix + "hello"},
		{name: "hello", qualifier: "$LATEST", arn: arnPrefix + "hello:$LATEST"},
		{name: "hello:1", arn: arnPrefix + "hello:1"},
		{name: "hello", qualifier: "1", arn: arnPrefix + "hello:1"},
		{name: "hello:1", qualifier: "1", arn: arnPrefix + "hello:1"},
		{name: "function:hello", arn: arnPrefix + "hello"},
		{name: testAccount + ":function:hello:1", arn: arnPrefix + "hello:1"},
		{name: testRegion + ":" + testAccount + ":function:hello", arn: arnPrefix + "hello"},
		{name: arnPrefix + "hello", arn: arnPrefix + "hello"},
		{name: arnPrefix + "hello:$LATEST", arn: arnPrefix + "hello:$LATEST"},
		{name: arnPrefix + "hello", qualifier: "1", arn: arnPrefix + "hello:1"},

		{name: "hello:1", qualifier: "2", code: codeInvalid, message: "The derived qualifier from the function name does not match the specified qualifier."},
		{name: arnPrefix + "hello:$LATEST", qualifier: "1", code: codeInvalid, message: "The derived qualifier from the function name does not match"},
		{name: "nobody", code: codeNotFound, message: "Function not found: " + arnPrefix + "nobody"},
		{name: "nobody", qualifier: "7", code: codeNotFound, message: "Function not found: " + arnPrefix + "nobody:7"},
		{name: "hello", qualifier: "2", code: codeNotFound, message: "Function not found: " + arnPrefix + "hello:2"},
		{name: "hello", qualifier: "01", code: codeNotFound, message: "Function not found: " + arnPrefix + "hello:01"},
		{name: "hello", qualifier: "$latest", code: codeNotFound, message: "Function not found: " + arnPrefix + "hello:$latest"},
		{name: strings.Repeat("a", 65), code: codeNotFound, message: "Function not found: "},
		{name: "arn:aws:lambda:" + testRegion + ":" + testAccount + ":function", code: codeNotFound, message: "Function not found: " + arnPrefix + "function"},
		{name: "arn:aws:lambda:us-east-1:" + testAccount + ":function:hello", code: codeNotFound, message: "Functions from 'us-east-1' are not reachable in this region ('eu-central-1')"},
		{name: "arn:aws:lambda:" + testRegion + ":999999999999:function:hello", code: "AccessDeniedException"},
		{name: arnPrefix + "hello:1:2", code: codeMalformed, message: "at 'functionName' failed to satisfy constraint"},
		{name: "arn:aws:s3:::hello", code: codeMalformed},
		{name: "invalid-account:function:hello", code: codeMalformed},
	} {
		got, err := f.GetFunctionConfiguration(f.ctx(), &api.GetFunctionConfigurationInput{FunctionName: &c.name, Qualifier: optional(c.qualifier)})
		if c.code != "" {
			wantError(t, err, c.code, c.message)
		} else if err != nil || *got.FunctionArn != c.arn {
			t.Errorf("%s ?%s: %v %v, want %s", c.name, c.qualifier, got, err, c.arn)
		}
	}
}

func TestCreateRefusesWhatLambdaRefuses(t *testing.T) {
	f := newFixture(t)
	f.create("taken")
	before := f.stored()
	tags := map[string]string{}
	for i := range 51 {
		tags[fmt.Sprint("key", i)] = "v"
	}
	big := declaring(t, 300<<20)
	for _, c := range []struct {
		name          string
		change        func(*api.CreateFunctionInput)
		code, message string
	}{
		{"name too long", func(in *api.CreateFunctionInput) { in.FunctionName = aws.Ptr(strings.Repeat("a", 65)) }, codeInvalid, "at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"},
		{"name taken", func(in *api.CreateFunctionInput) { in.FunctionName = aws.Ptr("taken") }, codeConflict, "Function already exist: taken"},
		{"no handler", func(in *api.CreateFunctionInput) { in.Handler = nil }, codeInvalid, "Runtime and Handler are mandatory parameters for functions created with deployment packages."},
		{"no runtime", func(in *api.CreateFunctionInput) { in.Runtime = "" }, codeInvalid, "Runtime and Handler are mandatory"},
		{"malformed role", func(in *api.CreateFunctionInput) { in.Role = aws.Ptr("r1") }, codeMalformed, "Value 'r1' at 'role' failed to satisfy constraint"},
		{"role of another account", func(in *api.CreateFunctionInput) { in.Role = aws.Ptr("arn:aws:iam::999999999999:role/x") }, "AccessDeniedException", "Cross-account pass role is not allowed."},
		{"runtime that nothing serves", func(in *api.CreateFunctionInput) { in.Runtime = "java21" }, codeInvalid, "lapwing runtimes add java21"},
		{"deprecated runtime", func(in *api.CreateFunctionInput) { in.Runtime = "go1.x" }, codeInvalid, "The runtime parameter of go1.x is no longer supported for creating or updating AWS Lambda functions."},
		{"other architecture", func(in *api.CreateFunctionInput) { in.Architectures = []api.Architecture{"arm64"} }, codeInvalid, "The architecture arm64 is not supported on this host, which is x86_64."},
		{"two architectures", func(in *api.CreateFunctionInput) { in.Architectures = []api.Architecture{"x86_64", "arm64"} }, codeMalformed, "Value '[x86_64, arm64]' at 'architectures' failed"},
		{"timeout", func(in *api.CreateFunctionInput) { in.Timeout = aws.Ptr(int32(901)) }, codeMalformed, "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900"},
		{"memory", func(in *api.CreateFunctionInput) { in.MemorySize = aws.Ptr(int32(10241)) }, codeInvalid, "'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 10240"},
		{"environment too large", func(in *api.CreateFunctionInput) {
			in.Environment = &api.Environment{Variables: map[string]string{"LARGE_VAR": strings.Repeat("x", 4096-15)}}
		}, codeInvalid, `exceeded the 4KB limit. String measured: {"LARGE_VAR":"xxx`},
		{"reserved variables", func(in *api.CreateFunctionInput) {
			in.Environment = &api.Environment{Variables: map[string]string{"AWS_REGION": "x", "_HANDLER": "y", "OK": "z"}}
		}, codeInvalid, "contains reserved keys that are currently not supported for modification. Reserved keys used in this request: AWS_REGION, _HANDLER"},
		{"variable that no process can have", func(in *api.CreateFunctionInput) {
			in.Environment = &api.Environment{Variables: map[string]string{"OK": "a\x00b"}}
		}, codeInvalid, "the value of OK contains a NUL character"},
		{"log level with text", func(in *api.CreateFunctionInput) {
			in.LoggingConfig = &api.LoggingConfig{SystemLogLevel: "DEBUG"}
		}, codeInvalid, `LogLevel is not supported when LogFormat is set to "Text".`},
		{"too many tags", func(in *api.CreateFunctionInput) { in.Tags = tags }, codeInvalid, "Number of tags exceeds resource tag limit."},
		{"no code", func(in *api.CreateFunctionInput) { in.Code = &api.FunctionCode{} }, codeInvalid, "Please provide a source for function code."},
		{"zip and S3", func(in *api.CreateFunctionInput) { in.Code.S3Bucket = aws.Ptr("bucket") }, codeInvalid, "Please do not provide other FunctionCode parameters when providing a ZipFile."},
		{"not a zip", func(in *api.CreateFunctionInput) { in.Code.ZipFile = []byte("no zip") }, codeInvalid, "Could not unzip uploaded file. Please check your file, then try to upload again."},
		{"empty zip", func(in *api.CreateFunctionInput) { in.Code.ZipFile = pkg(t) }, codeInvalid, "Uploaded file must be a non-empty zip"},
		{"zip-slip", func(in *api.CreateFunctionInput) { in.Code.ZipFile = pkg(t, "ok", "", "../evil", "x") }, codeInvalid, "Could not unzip uploaded file."},
		{"too large unzipped", func(in *api.CreateFunctionInput) { in.Code.ZipFile = big }, codeInvalid, "Unzipped size must be smaller than 262144000 bytes"},
		{"too large zipped", func(in *api.CreateFunctionInput) { in.Code.ZipFile = make([]byte, maxZipped+1) }, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes"},
		{"missing bucket", func(in *api.CreateFunctionInput) {
			in.Code = &api.FunctionCode{S3Bucket: aws.Ptr("other"), S3Key: aws.Ptr("k")}
		}, codeInvalid, "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist"},
		{"missing object", func(in *api.CreateFunctionInput) {
			in.Code = &api.FunctionCode{S3Bucket: aws.Ptr("bucket"), S3Key: aws.Ptr("k")}
		}, codeInvalid, "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."},

		{"image package", func(in *api.CreateFunctionInput) { in.PackageType = api.PackageTypeImage }, codeInvalid, "Please provide ImageUri when creating a function with packageType Image."},
		{"image code", func(in *api.CreateFunctionInput) { in.Code = &api.FunctionCode{ImageUri: aws.Ptr("x")} }, codeInvalid, "Please don't provide ImageUri when creating a function with packageType Zip."},
		{"image with a runtime", func(in *api.CreateFunctionInput) {
			in.PackageType, in.Code = api.PackageTypeImage, &api.FunctionCode{ImageUri: aws.Ptr("x")}
		}, codeInvalid, "The Runtime and Handler parameters are not supported for functions created with container images."},
		{"image with layers", func(in *api.CreateFunctionInput) {
			in.PackageType, in.Code = api.PackageTypeImage, &api.FunctionCode{ImageUri: aws.Ptr("x")}
			in.Runtime, in.Handler, in.Layers = "", nil, []string{"arn"}
		}, codeInvalid, "Layers are not supported for functions created with container images."},
		{"signed image", func(in *api.CreateFunctionInput) {
			in.PackageType, in.Code = api.PackageTypeImage, &api.FunctionCode{ImageUri: aws.Ptr("x")}
			in.CodeSigningConfigArn = aws.Ptr("arn:aws:lambda:eu-central-1:123456789012:code-signing-config:csc-0123456789abcdef0")
		}, codeInvalid, "Code signing is not supported for functions created with container images."},
		{"image configuration of a package", func(in *api.CreateFunctionInput) {
			in.ImageConfig = &api.ImageConfig{Command: []string{"x"}}
		}, codeInvalid, "ImageConfig is not supported for functions created with deployment packages."},
		{"VPC", func(in *api.CreateFunctionInput) { in.VpcConfig = &api.VpcConfig{SubnetIds: []string{"subnet-1"}} }, codeInvalid, "VpcConfig is not supported"},
		{"dead letter queue", func(in *api.CreateFunctionInput) {
			in.DeadLetterConfig = &api.DeadLetterConfig{TargetArn: aws.Ptr("a")}
		}, codeInvalid, "DeadLetterConfig with a target other than a Lambda function is not supported"},
		{"file system", func(in *api.CreateFunctionInput) { in.FileSystemConfigs = []*api.FileSystemConfig{{}} }, codeInvalid, "FileSystemConfigs is not supported"},
		{"key", func(in *api.CreateFunctionInput) { in.KMSKeyArn = aws.Ptr("arn") }, codeInvalid, "KMSKeyArn is not supported"},
		{"SnapStart", func(in *api.CreateFunctionInput) {
			in.SnapStart = &api.SnapStart{ApplyOn: api.SnapStartApplyOnPublishedVersions}
		}, codeInvalid, "SnapStart ApplyOn PublishedVersions is not supported by Lapwing where it makes no snapshots."},
		{"code signing", func(in *api.CreateFunctionInput) { in.CodeSigningConfigArn = aws.Ptr("arn") }, "CodeSigningConfigNotFoundException", "The code signing configuration cannot be found. Check that the provided configuration is not deleted: arn."},
		{"durable", func(in *api.CreateFunctionInput) { in.DurableConfig = &api.DurableConfig{} }, codeInvalid, "DurableConfig is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := f.input("refused")
			c.change(in)
			_, err := f.CreateFunction(f.ctx(), in)
			wantError(t, err, c.code, c.message)
		})
	}
	if got := f.entries.list(""); len(got) != 1 {
		t.Errorf("%d functions, want the one from before", len(got))
	}
	if got := f.stored(); !slices.Equal(got, before) {
		t.Errorf("left behind: %v, before: %v", got, before)
	}
}

func TestHarmlessOptionsAreAccepted(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) {
		in.PackageType = api.PackageTypeZip
		in.Architectures = []api.Architecture{"x86_64"}
		in.VpcConfig = &api.VpcConfig{SubnetIds: []string{}, SecurityGroupIds: []string{}, Ipv6AllowedForDualStack: aws.Ptr(false)}
		in.DeadLetterConfig = &api.DeadLetterConfig{TargetArn: aws.Ptr("")}
		in.KMSKeyArn = aws.Ptr("")
		in.TracingConfig = &api.TracingConfig{Mode: api.TracingModePassThrough}
		in.Layers = []string{}
		in.SnapStart = &api.SnapStart{ApplyOn: api.SnapStartApplyOnNone}
		in.Environment = &api.Environment{Variables: map[string]string{"LARGE_VAR": strings.Repeat("x", 4096-16)}}
	})
	if c := f.get("hello", ""); len(c.Environment.Variables["LARGE_VAR"]) != 4080 {
		t.Errorf("environment: %v", c.Environment)
	}
}

func TestUpdateChangesWhatIsGivenOnly(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) {
		in.Description, in.Environment = aws.Ptr("first"), &api.Environment{Variables: map[string]string{"AA": "1"}}
	})
	before := f.get("hello", "")
	out, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{
		FunctionName: aws.Ptr("hello"), Timeout: aws.Ptr(int32(30)), RevisionId: before.RevisionId,
		LoggingConfig: &api.LoggingConfig{LogFormat: "JSON", ApplicationLogLevel: "DEBUG"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.State != api.StateActive || out.LastUpdateStatus != api.LastUpdateStatusInProgress || *out.LastUpdateStatusReason != "The function is being created." || out.LastUpdateStatusReasonCode != "Creating" {
		t.Errorf("update under way: %+v", out)
	}
	got := f.settled("hello")
	if got.LastUpdateStatus != api.LastUpdateStatusSuccessful || *got.Timeout != 30 || *got.Description != "first" || got.Environment.Variables["AA"] != "1" ||
		got.LoggingConfig.ApplicationLogLevel != "DEBUG" || got.LoggingConfig.SystemLogLevel != "INFO" {
		t.Errorf("after the update: %+v %+v", got, got.LoggingConfig)
	}
	_, err = f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{
		FunctionName: aws.Ptr("hello"), Environment: &api.Environment{}, LoggingConfig: &api.LoggingConfig{LogFormat: "Text"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got = f.settled("hello"); len(got.Environment.Variables) != 0 || got.LoggingConfig.ApplicationLogLevel != "" || got.LoggingConfig.SystemLogLevel != "" {
		t.Errorf("after clearing: %+v %+v", got.Environment, got.LoggingConfig)
	}
	_, err = f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), RevisionId: before.RevisionId})
	wantError(t, err, codeStale, "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
	_, err = f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), KMSKeyArn: aws.Ptr("arn")})
	wantError(t, err, codeInvalid, "KMSKeyArn is not supported")
	_, err = f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("nobody")})
	wantError(t, err, codeNotFound, "Function not found: "+arnPrefix+"nobody")
}

func TestUpdateCode(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	before, changed := f.get("hello", ""), pkg(t, "index.js", "// changed")

	dry, err := f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ZipFile: changed, DryRun: aws.Ptr(true)})
	if err != nil || *dry.CodeSha256 == *before.CodeSha256 {
		t.Fatalf("dry run: %+v %v", dry, err)
	}
	if got := f.get("hello", ""); *got.RevisionId != *before.RevisionId || *got.CodeSha256 != *before.CodeSha256 {
		t.Error("a dry run changed the function")
	}
	_, err = f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ZipFile: changed, RevisionId: aws.Ptr("stale")})
	wantError(t, err, codeStale, "Call the GetFunction/GetAlias API")
	_, err = f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ImageUri: aws.Ptr("x")})
	wantError(t, err, codeInvalid, "Please don't provide ImageUri when updating a function with packageType Zip.")

	f.objects.objects["bucket/code.zipv7"] = changed
	out, err := f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), S3Bucket: aws.Ptr("bucket"), S3Key: aws.Ptr("code.zip"), S3ObjectVersion: aws.Ptr("v7"), Publish: aws.Ptr(true)})
	if err != nil {
		t.Fatal(err)
	}
	if *out.FunctionArn != arnPrefix+"hello:1" || *out.Version != "1" || out.State != api.StatePending || out.LastUpdateStatus != "" || *out.CodeSha256 != *dry.CodeSha256 || *out.CodeSize != int64(len(changed)) {
		t.Errorf("published by the update: %+v", out)
	}
	if got := f.settled("hello"); *got.CodeSha256 != *dry.CodeSha256 || got.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("afterwards: %+v", got)
	}
	if got := f.get("hello", "1"); got.State != api.StateActive || got.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("version: %+v", got)
	}
	// The same code again publishes nothing new.
	out, err = f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ZipFile: changed, Publish: aws.Ptr(true)})
	if err != nil || *out.Version != "1" {
		t.Errorf("unchanged: %+v %v", out, err)
	}
	f.settled("hello")
	if !slices.Contains(f.invoker.retired, arnPrefix+"hello $LATEST") {
		t.Errorf("retired: %v", f.invoker.retired)
	}
}

func TestUnusedCodeIsDeletedWhenNothingCanUseItAnyMore(t *testing.T) {
	f := newFixture(t)
	f.create("one")
	f.create("two", func(in *api.CreateFunctionInput) { in.Code.ZipFile = pkg(t, "index.js", "// one") }) // the same package
	_, err := f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("one"), ZipFile: pkg(t, "index.js", "// new")})
	if err != nil {
		t.Fatal(err)
	}
	f.settled("one")
	f.clock.advance(codeGrace)
	f.code.collectDue()
	if n := len(f.stored()); n != 4 {
		t.Errorf("%v, want two images and two blobs: function two still needs the old package", f.stored())
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("two")}); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(codeGrace - time.Second)
	f.code.collectDue()
	if n := len(f.stored()); n != 4 {
		t.Errorf("deleted within the grace period: %v", f.stored())
	}
	f.clock.advance(time.Second)
	f.code.collectDue()
	if n := len(f.stored()); n != 2 {
		t.Errorf("%v, want one image and one blob", f.stored())
	}
}

func TestRestartFindsEverything(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) {
		in.Tags, in.Publish = map[string]string{"team": "a"}, aws.Ptr(true)
		in.Environment = &api.Environment{Variables: map[string]string{"AA": "1"}}
	})
	f.change("hello", "second")
	f.publish("hello")
	ctx := f.ctx()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1"),
		RoutingConfig: &api.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"2": 0.25}}}))
	for _, q := range []string{"", "1", "live"} {
		must(f.AddPermission(ctx, &api.AddPermissionInput{FunctionName: aws.Ptr("hello"), Qualifier: optional(q), StatementId: aws.Ptr("s" + q), Action: aws.Ptr("lambda:InvokeFunction"), Principal: aws.Ptr("s3.amazonaws.com")}))
	}
	must(f.PutFunctionConcurrency(ctx, &api.PutFunctionConcurrencyInput{FunctionName: aws.Ptr("hello"), ReservedConcurrentExecutions: aws.Ptr(int32(7))}))

	snapshot := func() string {
		var b strings.Builder
		for _, q := range []string{"", "$LATEST", "1", "2", "live"} {
			c := f.get("hello", q)
			fmt.Fprintln(&b, q, *c.FunctionArn, *c.Version, *c.RevisionId, *c.Description, *c.CodeSha256, c.State, c.LastUpdateStatus, c.Environment.Variables, *c.LastModified)
		}
		for _, q := range []string{"", "1", "live"} {
			p, err := f.GetPolicy(ctx, &api.GetPolicyInput{FunctionName: aws.Ptr("hello"), Qualifier: optional(q)})
			must(p, err)
			fmt.Fprintln(&b, *p.Policy, *p.RevisionId)
		}
		a, err := f.GetAlias(ctx, &api.GetAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live")})
		must(a, err)
		tags, err := f.ListTags(ctx, &api.ListTagsInput{Resource: aws.Ptr(arnPrefix + "hello")})
		must(tags, err)
		fmt.Fprintln(&b, *a.FunctionVersion, a.RoutingConfig.AdditionalVersionWeights, *a.RevisionId, tags.Tags, f.entries.reservedIn(""), f.stored())
		return b.String()
	}
	before := snapshot()
	f.reopen()
	if after := snapshot(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Error(err)
	}
}

func TestStartCleansUpAfterACrash(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	e := f.entries.get(functionKey{testRegion, "hello"})
	orphan := versionRecord{FunctionID: "deleted long ago", Number: 1, Config: e.function.Value.Config}
	uncommitted := versionRecord{FunctionID: e.function.Value.ID, Number: 2, Config: e.function.Value.Config}
	for key, v := range map[string]versionRecord{testRegion + "/gone/0000000001": orphan, testRegion + "/hello/0000000002": uncommitted} {
		if _, err := f.versions.Put(t.Context(), key, v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.aliases.Put(t.Context(), testRegion+"/hello/old", aliasRecord{FunctionID: "deleted long ago", Name: "old", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	img, err := f.opts.Images.Unpack(t.Context(), bytes.NewReader(pkg(t, "a", "b")), int64(len(pkg(t, "a", "b"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.opts.Images.Path(e.function.Value.Config.Code.Digest)); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if f.opts.Images.Has(img.Digest) {
		t.Error("an image that nothing refers to is still there")
	}
	if !f.opts.Images.Has(e.function.Value.Config.Code.Digest) {
		t.Error("the image of a function was not made again")
	}
	keys := func() (keys []string) {
		for v := range f.versions.Scan("", "") {
			keys = append(keys, v.Key)
		}
		for a := range f.aliases.Scan("", "") {
			keys = append(keys, a.Key)
		}
		return keys
	}
	if got := keys(); !slices.Equal(got, []string{testRegion + "/hello/0000000001"}) {
		t.Errorf("records: %v", got)
	}
	f.change("hello", "two")
	if v := f.publish("hello"); v != "2" {
		t.Errorf("next version is %s", v)
	}
}

func TestDeletedFunctionLeavesNothingToItsSuccessor(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) { in.Publish, in.Tags = aws.Ptr(true), map[string]string{"a": "b"} })
	ctx := f.ctx()
	if _, err := f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddPermission(ctx, &api.AddPermissionInput{FunctionName: aws.Ptr("hello"), StatementId: aws.Ptr("s"), Action: aws.Ptr("lambda:*"), Principal: aws.Ptr("*")}); err != nil {
		t.Fatal(err)
	}
	out, err := f.DeleteFunction(ctx, &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")})
	if err != nil || *out.StatusCode != 204 {
		t.Fatalf("%v %v", out, err)
	}
	_, err = f.GetFunction(ctx, &api.GetFunctionInput{FunctionName: aws.Ptr("hello")})
	wantError(t, err, codeNotFound, "Function not found: "+arnPrefix+"hello")
	_, err = f.DeleteFunction(ctx, &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")})
	wantError(t, err, codeNotFound, "Function not found: "+arnPrefix+"hello")
	if n := f.versions.Len() + f.aliases.Len(); n != 0 {
		t.Errorf("%d records left", n)
	}
	if !slices.Contains(f.invoker.retired, arnPrefix+"hello ") {
		t.Errorf("retired: %v", f.invoker.retired)
	}
	f.create("hello")
	e := f.entries.get(functionKey{testRegion, "hello"})
	if got := slices.Sorted(maps.Keys(e.routes)); !slices.Equal(got, []string{"", "$LATEST"}) {
		t.Errorf("routes: %v", got)
	}
	_, err = f.GetPolicy(ctx, &api.GetPolicyInput{FunctionName: aws.Ptr("hello")})
	wantError(t, err, codeNotFound, "The resource you requested does not exist.")
}

func TestWritersOfOneFunctionDoNotLoseUpdates(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := f.TagResource(f.ctx(), &api.TagResourceInput{Resource: aws.Ptr(arnPrefix + "hello"), Tags: map[string]string{fmt.Sprint("k", i): "v"}})
			if err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, err := f.AddPermission(f.ctx(), &api.AddPermissionInput{FunctionName: aws.Ptr("hello"), StatementId: aws.Ptr(fmt.Sprint("s", i)), Action: aws.Ptr("lambda:*"), Principal: aws.Ptr("*")})
			if err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, err := f.CreateFunction(f.ctx(), f.input("race"))
			if err != nil {
				wantError(t, err, codeConflict, "Function already exist: race")
			}
		})
	}
	wg.Wait()
	r := f.entries.get(functionKey{testRegion, "hello"}).function.Value
	if len(r.Tags) != 8 || len(r.Policy) != 8 {
		t.Errorf("%d tags, %d statements, want 8 of each", len(r.Tags), len(r.Policy))
	}
	f.settled("race")
}

func FuzzResolve(f *testing.F) {
	for _, seed := range []string{"hello", "hello:1", arnPrefix + "hello:$LATEST", testAccount + ":function:hello", "a:b:c", "arn:aws:lambda:::function:x"} {
		f.Add(seed, "")
		f.Add(seed, "1")
	}
	s := &Service{opts: Options{AccountID: testAccount, Region: testRegion}}
	f.Fuzz(func(t *testing.T, name, qualifier string) {
		ref, err := s.resolve(t.Context(), name, qualifier)
		if err != nil {
			return
		}
		if ref.region != testRegion || ref.arn != arnPrefix+ref.name || strings.Contains(ref.name, ":") {
			t.Errorf("%q %q: %+v", name, qualifier, ref)
		}
		if qualifier != "" && ref.qualifier != qualifier {
			t.Errorf("%q %q: qualifier %q", name, qualifier, ref.qualifier)
		}
	})
}
