package lambda

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/image"
)

const layerPrefix = "arn:aws:lambda:" + testRegion + ":" + testAccount + ":layer:"

// layer publishes a version of a layer and returns its ARN.
func (f *fixture) layer(name string, files ...string) string {
	f.t.Helper()
	out, err := f.PublishLayerVersion(f.ctx(), &api.PublishLayerVersionInput{
		LayerName: &name, Content: &api.LayerVersionContentInput{ZipFile: pkg(f.t, files...)},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return *out.LayerVersionArn
}

func (f *fixture) deleteLayer(name string, number int64) {
	f.t.Helper()
	if _, err := f.DeleteLayerVersion(f.ctx(), &api.DeleteLayerVersionInput{LayerName: &name, VersionNumber: &number}); err != nil {
		f.t.Fatal(err)
	}
}

// opt reads a file of what a function has at /opt.
func (f *fixture) opt(function, name string) string {
	f.t.Helper()
	v := f.entries.get(functionKey{testRegion, function}).routes[""].target.version
	b, err := f.readImage(v.Layers, name)
	if err != nil {
		f.t.Error(err)
	}
	return string(b)
}

func layerARNs(list []*api.Layer) (arns []string) {
	for _, l := range list {
		arns = append(arns, *l.Arn)
	}
	return arns
}

func TestPublishedLayerIsShownWithItsContent(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(f.CodeHandler())
	defer server.Close()
	ctx := aws.WithRequest(t.Context(), &aws.Request{Region: testRegion, BaseURL: server.URL})
	content := pkg(t, "lib/a", "1")
	out, err := f.PublishLayerVersion(ctx, &api.PublishLayerVersionInput{
		LayerName: aws.Ptr("tools"), Description: aws.Ptr("my tools"), LicenseInfo: aws.Ptr("MIT"),
		CompatibleArchitectures: []api.Architecture{"x86_64", "arm64"}, CompatibleRuntimes: []api.Runtime{"java21", "nodejs22.x"},
		Content: &api.LayerVersionContentInput{ZipFile: content},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.GetLayerVersion(ctx, &api.GetLayerVersionInput{LayerName: aws.Ptr(layerPrefix + "tools"), VersionNumber: aws.Ptr(int64(1))})
	if err != nil {
		t.Fatal(err)
	}
	byARN, err := f.GetLayerVersionByArn(ctx, &api.GetLayerVersionByArnInput{Arn: aws.Ptr(layerPrefix + "tools:1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*api.GetLayerVersionResponse{(*api.GetLayerVersionResponse)(out), got, byARN} {
		shown := fmt.Sprintln(*v.LayerArn, *v.LayerVersionArn, *v.Version, *v.Description, *v.LicenseInfo, *v.CreatedDate, v.CompatibleArchitectures, v.CompatibleRuntimes, *v.Content.CodeSize)
		want := fmt.Sprintln(layerPrefix+"tools", layerPrefix+"tools:1", 1, "my tools", "MIT", "2026-11-24T01:02:03.456+0000", "[x86_64 arm64]", "[java21 nodejs22.x]", len(content))
		if shown != want {
			t.Errorf("got  %s\nwant %s", shown, want)
		}
		resp, err := http.Get(*v.Content.Location)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(content)) {
			t.Errorf("content: %s, %d bytes", resp.Status, resp.ContentLength)
		}
	}
}

func TestLayerVersionNumbersAreNeverUsedTwice(t *testing.T) {
	f := newFixture(t)
	for i, want := range []string{"l:1", "l:2"} {
		if got := f.layer("l", "a", fmt.Sprint(i)); got != layerPrefix+want {
			t.Errorf("published %s, want %s", got, want)
		}
	}
	f.deleteLayer("l", 1)
	f.deleteLayer("l", 2)
	f.deleteLayer("l", 2) // is no error
	f.reopen()
	if got := f.layer("l", "a", "0"); got != layerPrefix+"l:3" {
		t.Errorf("published %s after the deletion of all", got)
	}
	_, err := f.GetLayerVersion(f.ctx(), &api.GetLayerVersionInput{LayerName: aws.Ptr("l"), VersionNumber: aws.Ptr(int64(2))})
	wantError(t, err, codeNotFound, "The resource you requested does not exist.")
	_, err = f.DeleteLayerVersion(f.ctx(), &api.DeleteLayerVersionInput{LayerName: aws.Ptr("l"), VersionNumber: aws.Ptr(int64(0))})
	wantError(t, err, codeInvalid, "Layer Version Cannot be less than 1")
}

func TestPublishLayerVersionRefuses(t *testing.T) {
	f := newFixture(t)
	f.objects.objects["bucket/layer.zip"] = pkg(t, "a", "1")
	for name, tt := range map[string]struct {
		change        func(*api.PublishLayerVersionInput)
		code, message string
	}{
		"no zip":    {func(in *api.PublishLayerVersionInput) { in.Content.ZipFile = []byte("x") }, codeInvalid, "Could not unzip uploaded file. Please check your file, then try to upload again."},
		"empty zip": {func(in *api.PublishLayerVersionInput) { in.Content.ZipFile = pkg(t) }, codeInvalid, "Uploaded file must be a non-empty zip"},
		"too large": {func(in *api.PublishLayerVersionInput) { in.Content.ZipFile = declaring(t, image.MaxUnpacked) }, codeInvalid, "Unzipped size must be smaller than 262144000 bytes"},
		"no source": {func(in *api.PublishLayerVersionInput) { in.Content.ZipFile = nil }, codeInvalid, "Please provide a source for layer content."},
		"no object": {func(in *api.PublishLayerVersionInput) { *in.Content = fromS3("nothing") }, codeInvalid, "Error occurred while GetObject. S3 Error Code: NoSuchKey."},
		"runtime":   {func(in *api.PublishLayerVersionInput) { in.CompatibleRuntimes = []api.Runtime{"nodejs22.x", "cobol"} }, codeMalformed, "Value '[nodejs22.x, cobol]' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [nodejs, "},
		"other Region": {func(in *api.PublishLayerVersionInput) {
			in.LayerName = aws.Ptr("arn:aws:lambda:us-east-1:" + testAccount + ":layer:l")
		}, codeNotFound, "Layers from 'us-east-1' are not reachable in this region ('eu-central-1')"},
		"other account": {func(in *api.PublishLayerVersionInput) {
			in.LayerName = aws.Ptr("arn:aws:lambda:" + testRegion + ":999999999999:layer:l")
		}, "AccessDeniedException",
			"is not authorized to perform: lambda:"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &api.PublishLayerVersionInput{LayerName: aws.Ptr("l"), Content: &api.LayerVersionContentInput{ZipFile: pkg(f.t, "a", "1")}}
			tt.change(in)
			_, err := f.PublishLayerVersion(f.ctx(), in)
			wantError(t, err, tt.code, tt.message)
		})
	}
	if len(f.layerVersions.List("")) != 0 {
		t.Error("something was published")
	}
	content := fromS3("layer.zip")
	if _, err := f.PublishLayerVersion(f.ctx(), &api.PublishLayerVersionInput{LayerName: aws.Ptr("l"), Content: &content}); err != nil {
		t.Errorf("from S3: %v", err)
	}
}

func fromS3(key string) api.LayerVersionContentInput {
	return api.LayerVersionContentInput{S3Bucket: aws.Ptr("bucket"), S3Key: aws.Ptr(key)}
}

func TestLayersAreListedByWhatTheyFit(t *testing.T) {
	f := newFixture(t)
	publish := func(name string, architecture api.Architecture, runtime api.Runtime) {
		t.Helper()
		in := &api.PublishLayerVersionInput{LayerName: &name, Content: &api.LayerVersionContentInput{ZipFile: pkg(t, "a", name)}}
		if architecture != "" {
			in.CompatibleArchitectures = []api.Architecture{architecture}
		}
		if runtime != "" {
			in.CompatibleRuntimes = []api.Runtime{runtime}
		}
		if _, err := f.PublishLayerVersion(f.ctx(), in); err != nil {
			t.Fatal(err)
		}
	}
	publish("b", "x86_64", "nodejs22.x")
	publish("b", "arm64", "python3.13")
	publish("b", "", "")
	publish("a", "x86_64", "python3.13")
	publish("b-c", "", "")
	publish("gone", "", "")
	f.deleteLayer("gone", 1)

	layers := func(in *api.ListLayersInput) (list []string) {
		t.Helper()
		for {
			out, err := f.ListLayers(f.ctx(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range out.Layers {
				list = append(list, strings.TrimPrefix(*l.LatestMatchingVersion.LayerVersionArn, layerPrefix))
			}
			if in.Marker = out.NextMarker; in.Marker == nil {
				return list
			}
		}
	}
	versions := func(in *api.ListLayerVersionsInput) (list []string) {
		t.Helper()
		in.LayerName = aws.Ptr("b")
		for {
			out, err := f.ListLayerVersions(f.ctx(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range out.LayerVersions {
				list = append(list, fmt.Sprint(*v.Version))
			}
			if in.Marker = out.NextMarker; in.Marker == nil {
				return list
			}
		}
	}
	one := aws.Ptr(int32(1))
	for what, tt := range map[string]struct{ got, want []string }{
		"all":                    {layers(&api.ListLayersInput{}), []string{"a:1", "b:3", "b-c:1"}},
		"one by one":             {layers(&api.ListLayersInput{MaxItems: one}), []string{"a:1", "b:3", "b-c:1"}},
		"architecture":           {layers(&api.ListLayersInput{CompatibleArchitecture: "x86_64"}), []string{"a:1", "b:1"}},
		"runtime":                {layers(&api.ListLayersInput{CompatibleRuntime: "python3.13"}), []string{"a:1", "b:2"}},
		"both":                   {layers(&api.ListLayersInput{CompatibleRuntime: "nodejs22.x", CompatibleArchitecture: "arm64"}), nil},
		"versions":               {versions(&api.ListLayerVersionsInput{}), []string{"3", "2", "1"}},
		"versions one by one":    {versions(&api.ListLayerVersionsInput{MaxItems: one}), []string{"3", "2", "1"}},
		"versions for a runtime": {versions(&api.ListLayerVersionsInput{CompatibleRuntime: "nodejs22.x"}), []string{"1"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: %v, want %v", what, tt.got, tt.want)
		}
	}
	_, err := f.ListLayers(f.ctx(), &api.ListLayersInput{Marker: aws.Ptr("?")})
	wantError(t, err, codeInvalid, "Marker")
	_, err = f.ListLayerVersions(f.ctx(), &api.ListLayerVersionsInput{LayerName: aws.Ptr("b"), Marker: aws.Ptr("x")})
	wantError(t, err, codeInvalid, "Marker")
	_, err = f.ListLayers(f.ctx(), &api.ListLayersInput{CompatibleRuntime: "cobol"})
	wantError(t, err, codeMalformed, "at 'compatibleRuntime'")
	out, err := f.ListLayerVersions(f.ctx(), &api.ListLayerVersionsInput{LayerName: aws.Ptr("nothing")})
	if err != nil || out.LayerVersions == nil || len(out.LayerVersions) != 0 {
		t.Errorf("a layer that does not exist: %v %v", out, err)
	}
}

func TestFunctionHasItsLayersInOrder(t *testing.T) {
	f := newFixture(t)
	low := f.layer("low", "both", "low", "low", "1")
	high := f.layer("high", "both", "high", "high", "1")
	f.create("hello", func(in *api.CreateFunctionInput) { in.Layers = []string{low, high} })
	if got := layerARNs(f.get("hello", "").Layers); !slices.Equal(got, []string{low, high}) {
		t.Errorf("layers %v", got)
	}
	if both, l, h := f.opt("hello", "both"), f.opt("hello", "low"), f.opt("hello", "high"); both != "high" || l != "1" || h != "1" {
		t.Errorf("/opt has %q, %q, %q", both, l, h)
	}
	version := f.publish("hello")

	update := func(layers []string) error {
		_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Layers: layers})
		if err == nil {
			f.settled("hello")
		}
		return err
	}
	if err := update([]string{high, low}); err != nil {
		t.Fatal(err)
	}
	if both := f.opt("hello", "both"); both != "low" {
		t.Errorf("in the other order /opt has %q", both)
	}
	if err := update(nil); err != nil {
		t.Fatal(err)
	}
	if got := layerARNs(f.get("hello", "").Layers); !slices.Equal(got, []string{high, low}) {
		t.Errorf("an update of nothing made the layers %v", got)
	}
	if err := update([]string{}); err != nil {
		t.Fatal(err)
	}
	if c := f.get("hello", ""); len(c.Layers) != 0 || f.entries.get(functionKey{testRegion, "hello"}).routes[""].target.version.Layers != "" {
		t.Errorf("cleared, but layers %v", c.Layers)
	}
	if got := layerARNs(f.get("hello", version).Layers); !slices.Equal(got, []string{low, high}) {
		t.Errorf("the published version has %v", got)
	}
}

func TestFunctionsKeepTheLayersThatWereDeleted(t *testing.T) {
	f := newFixture(t)
	one, two := f.layer("one", "one", "1"), f.layer("two", "two", "2")
	f.layer("unused", "unused", "3")
	f.create("hello", func(in *api.CreateFunctionInput) { in.Layers = []string{one, two} })
	for _, name := range []string{"one", "two", "unused"} {
		f.deleteLayer(name, 1)
	}
	// Images: the code, two layers, and both merged; blobs: all but the last.
	f.wantStored(codeGrace, 4+3)
	f.reopen()
	if a, b := f.opt("hello", "one"), f.opt("hello", "two"); a != "1" || b != "2" {
		t.Errorf("/opt has %q %q", a, b)
	}
	f.change("hello", "still works")
	_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Layers: []string{one}})
	wantError(t, err, codeInvalid, "Layer version "+one+" does not exist.")

	// Images come back from what was uploaded.
	f.close()
	if err := os.RemoveAll(filepath.Join(f.dir, "images")); err != nil {
		t.Fatal(err)
	}
	f.open()
	if a, b := f.opt("hello", "one"), f.opt("hello", "two"); a != "1" || b != "2" {
		t.Errorf("made again, /opt has %q %q", a, b)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	f.wantStored(codeGrace, 0)
}

// wantStored waits until so many images and blobs are there after a while.
func (f *fixture) wantStored(after time.Duration, want int) {
	f.t.Helper()
	f.clock.advance(after)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.code.collectDue()
		got := f.stored()
		if len(got) == want {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%d images and blobs, want %d: %v", len(got), want, got)
		}
	}
}

func TestLayersOfAFunctionAreChecked(t *testing.T) {
	f := newFixture(t)
	one, again := f.layer("one", "a", "1"), f.layer("one", "a", "2")
	var six []string
	for i := range 6 {
		six = append(six, f.layer(fmt.Sprint("l", i), "a", fmt.Sprint(i)))
	}
	for name, tt := range map[string]struct {
		layers        []string
		code, message string
	}{
		"too many":      {six, codeInvalid, "Cannot reference more than 5 layers."},
		"missing":       {[]string{one + "9"}, codeInvalid, "Layer version " + one + "9 does not exist."},
		"of AWS":        {[]string{"arn:aws:lambda:::awslayer:AmazonLinux1803"}, codeInvalid, "Layer version arn:aws:lambda:::awslayer:AmazonLinux1803 does not exist."},
		"huge number":   {[]string{layerPrefix + "one:99999999999999999999"}, codeInvalid, "does not exist."},
		"two versions":  {[]string{one, six[0], again}, codeInvalid, "Two different versions of the same layer are not allowed to be referenced in the same function. " + one + " and " + again + " are versions of the same layer."},
		"other Region":  {[]string{strings.Replace(one, testRegion, "us-east-1", 1)}, codeInvalid, "Layers are not in the same region as the function. Layers are expected to be in region eu-central-1."},
		"other account": {[]string{strings.Replace(one, testAccount, "999999999999", 1)}, "AccessDeniedException", "is not authorized to perform: lambda:GetLayerVersion on resource: arn:aws:lambda:eu-central-1:999999999999:layer:one:1 because no resource-based policy allows the lambda:GetLayerVersion action"},
	} {
		t.Run(name, func(t *testing.T) {
			in := f.input("hello")
			in.Layers = tt.layers
			_, err := f.CreateFunction(f.ctx(), in)
			wantError(t, err, tt.code, tt.message)
		})
	}
	f.create("five", func(in *api.CreateFunctionInput) { in.Layers = six[:5] })
}

func TestCodeAndLayersShareTheUnzippedLimit(t *testing.T) {
	const mb = 1 << 20
	for _, tt := range []struct {
		code   int64
		layers []int64
		want   string
	}{
		{code: image.MaxUnpacked - 1},
		{code: 100 * mb, layers: []int64{50 * mb, 100 * mb}},
		{code: 100 * mb, layers: []int64{50 * mb, 100*mb + 1}, want: "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is 262144001 bytes."},
		{code: 1, layers: []int64{200 * mb, 100 * mb}, want: "Layers consume more than the available size of 262144000 bytes"},
	} {
		c := configuration{Code: codePackage{Unpacked: tt.code}}
		for _, size := range tt.layers {
			c.Layers = append(c.Layers, layerUse{Code: codePackage{Unpacked: size}})
		}
		err := c.checkUnzipped()
		if tt.want == "" {
			if err != nil {
				t.Errorf("%v: %v", tt, err)
			}
			continue
		}
		wantError(t, err, codeInvalid, tt.want)
	}
}

func TestLayersCountAsCodeStorage(t *testing.T) {
	f := newFixture(t)
	f.layer("l", "a", "1")
	f.layer("l", "a", "1")
	size := int64(len(pkg(t, "a", "1")))
	out, err := f.GetAccountSettings(f.ctx(), &api.GetAccountSettingsInput{})
	if err != nil || *out.AccountUsage.TotalCodeSize != 2*size {
		t.Errorf("%d bytes, want %d: %v", *out.AccountUsage.TotalCodeSize, 2*size, err)
	}
}

func TestLayerVersionPolicy(t *testing.T) {
	f := newFixture(t)
	f.layer("l", "a", "1")
	add := func(sid, principal string, organization, revision *string) (*api.AddLayerVersionPermissionOutput, error) {
		return f.AddLayerVersionPermission(f.ctx(), &api.AddLayerVersionPermissionInput{
			LayerName: aws.Ptr("l"), VersionNumber: aws.Ptr(int64(1)), StatementId: &sid, Action: aws.Ptr("lambda:GetLayerVersion"),
			Principal: &principal, OrganizationId: organization, RevisionId: revision,
		})
	}
	get := func(number int64) (*api.GetLayerVersionPolicyOutput, error) {
		return f.GetLayerVersionPolicy(f.ctx(), &api.GetLayerVersionPolicyInput{LayerName: aws.Ptr("l"), VersionNumber: &number})
	}
	remove := func(sid string, revision *string) error {
		_, err := f.RemoveLayerVersionPermission(f.ctx(), &api.RemoveLayerVersionPermissionInput{
			LayerName: aws.Ptr("l"), VersionNumber: aws.Ptr(int64(1)), StatementId: &sid, RevisionId: revision,
		})
		return err
	}
	_, err := get(1)
	wantError(t, err, codeNotFound, "No policy is associated with the given resource.")
	wantError(t, remove("one", nil), codeNotFound, "No policy is associated with the given resource.")
	_, err = get(2)
	wantError(t, err, codeNotFound, "Layer version "+layerPrefix+"l:2 does not exist.")

	one, err := add("one", "111122223333", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Sid":"one","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"lambda:GetLayerVersion","Resource":"` + layerPrefix + `l:1"}`; *one.Statement != want {
		t.Errorf("statement %s\nwant %s", *one.Statement, want)
	}
	_, err = add("one", "*", nil, nil)
	wantError(t, err, codeConflict, "The statement id (one) provided already exists. Please provide a new statement id, or remove the existing statement.")
	stale := "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id"
	_, err = add("two", "*", nil, aws.Ptr("x"))
	wantError(t, err, codeStale, stale)
	two, err := add("two", "*", aws.Ptr("o-0123456789"), one.RevisionId)
	if err != nil {
		t.Fatal(err)
	}
	f.reopen()
	policy, err := get(1)
	if err != nil || *policy.RevisionId != *two.RevisionId ||
		!strings.Contains(*policy.Policy, `"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-0123456789"}}`) {
		t.Fatalf("%+v %v", policy, err)
	}
	wantError(t, remove("three", nil), codeNotFound, "Statement three is not found in resource policy.")
	wantError(t, remove("one", one.RevisionId), codeStale, stale)
	if err := errors.Join(remove("one", two.RevisionId), remove("two", nil)); err != nil {
		t.Fatal(err)
	}
	_, err = get(1)
	wantError(t, err, codeNotFound, "No policy is associated with the given resource.")
}
