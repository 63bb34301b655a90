package conformance_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"lapwing.dev/lapwing/test/harness"
)

// workspace is a folder with a configuration, as Terraform is run in it.
type workspace struct {
	dir string
	env []string
	// vars are the variables of the configuration beside v.
	vars []string
}

// imported are addresses of resources that are forgotten, and found again by
// import, with what names them where it is not their id (after "=").
var imported = []string{
	"module.acm.aws_acm_certificate.imported",
	"module.cloudfront.aws_cloudfront_distribution.d",
	"module.cloudfront.aws_cloudfront_cache_policy.c",
	"module.cloudfront.aws_cloudfront_origin_request_policy.o",
	"module.cloudfront.aws_cloudfront_response_headers_policy.h",
	"module.cloudfront.aws_cloudfront_function.f",
	"module.cloudfront.aws_cloudfront_key_value_store.k",
	"module.cloudfront.aws_cloudfront_origin_access_control.oac",
	"module.cloudfront.aws_cloudfront_key_group.g",
	"module.cloudfront.aws_cloudfront_public_key.p",
	"module.cloudfront.aws_cloudfrontkeyvaluestore_key.k",
	"module.ecr.aws_ecr_repository.r",
	"module.ecr.aws_ecr_lifecycle_policy.l",
	"module.iam.aws_iam_role.r",
	"module.iam.aws_iam_policy.p",
	"module.iam.aws_iam_role_policy.rp",
	"module.iam.aws_iam_role_policy_attachment.m=tf-role/arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole",
	"module.kinesis.aws_kinesis_stream.s=tf-stream",
	"module.lambda.aws_lambda_function.full",
	"module.lambda.aws_lambda_alias.live=tf-full/live",
	"module.lambda.aws_lambda_permission.url=tf-full/url",
	"module.lambda.aws_lambda_function_url.u",
	"module.lambda.aws_lambda_function_event_invoke_config.e",
	"module.lambda.aws_lambda_provisioned_concurrency_config.p",
	"module.logs.aws_cloudwatch_log_group.g",
	"module.s3.aws_s3_bucket.b",
	"module.s3.aws_s3_bucket_versioning.b",
	"module.s3.aws_s3_bucket_policy.b",
	"module.s3.aws_s3_bucket_public_access_block.b",
	"module.s3.aws_s3_object.o=tf-bucket-one/folder/hello.txt",
}

// Terraform's AWS provider reads back everything that it made. Where a service
// answers other than AWS does, it fails, or plans to change what nobody changed.
func TestTerraform_Conformance(t *testing.T) {
	needs(t, "Terraform and its AWS provider")
	w := newWorkspace(t, "terraform")
	w.certificate(t, "acm", "imported.example.org")
	w.distributionFiles(t, "cloudfront")
	w.functionFiles(t, "lambda")
	w.must(t, "apply", "-auto-approve", "-var=v=1")
	w.wantNoChanges(t, "-var=v=1")
	w.reimport(t, imported)
	w.must(t, "apply", "-auto-approve", "-var=v=2")
	w.wantNoChanges(t, "-var=v=2")
	w.must(t, "destroy", "-auto-approve", "-var=v=2")
}

func TestTerraformIsToldWhatIsNotThere_Conformance(t *testing.T) {
	needs(t, "Terraform and its AWS provider")
	w := newWorkspace(t, filepath.Join("terraform", "refused"))
	out, err := w.run(t, "apply", "-auto-approve")
	if err == nil {
		t.Errorf("all of it was made:\n%s", out)
	}
	// Lines of errors are broken where Terraform likes.
	out = strings.Join(strings.Fields(strings.NewReplacer("│", "", "╷", "", "╵", "").Replace(out)), " ")
	for _, want := range []string{
		`The operation "PutBucketCors" of S3 is not supported by Lapwing.`,
		`The operation "PutBucketEncryption" of S3 is not supported by Lapwing.`,
		`The operation "CreateEventSourceMapping" of Lambda is not supported by Lapwing.`,
		`UnknownServiceException`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no word of %s in:\n%s", want, out)
		}
	}
	w.must(t, "destroy", "-auto-approve")
}

func TestTerraformExample_Conformance(t *testing.T) {
	needs(t, "Terraform and its AWS provider")
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkspace(t, filepath.Join(root, "examples", "terraform"))
	code, err := os.ReadFile(filepath.Join(w.dir, "index.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "function.zip", harness.Zip(map[string]string{"index.mjs": string(code)}))
	w.must(t, "apply", "-auto-approve")
	ask := func(want string) {
		t.Helper()
		url := strings.TrimSpace(w.must(t, "output", "-raw", "url"))
		resp, err := http.Get(url + "?name=Ada")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != want {
			t.Errorf("%s answers %q, %v; want %q", url, got, err, want)
		}
	}
	ask("Hello, Ada!\n")
	w.wantNoChanges(t)
	w.must(t, "apply", "-auto-approve", "-var=greeting=Hallo")
	ask("Hallo, Ada!\n")
	w.must(t, "destroy", "-auto-approve")
}

// newWorkspace copies a configuration and initialises it.
// Where Terraform is not installed, or its AWS provider is not to be had, the
// test is skipped with the reason.
func newWorkspace(t *testing.T, dir string) *workspace {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("Terraform is not installed here: nothing of this was tested")
	}
	w := &workspace{dir: t.TempDir()}
	if err := os.CopyFS(w.dir, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// The key value stores' client asks ACCOUNT.localhost, which not every
	// resolver knows; it takes a proxy for that name, and none for 127.0.0.1.
	w.env = append(server.Environ(), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "HTTP_PROXY="+server.URL())
	if out, err := w.run(t, "init"); err != nil {
		t.Skipf("the AWS provider of Terraform is not to be had here: nothing of this was tested (TF_CLI_CONFIG_FILE may name a mirror)\n%s", out)
	}
	return w
}

func (w *workspace) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a command of Terraform and returns what it printed.
func (w *workspace) run(t *testing.T, command string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	if command != "state" && command != "output" {
		args = append([]string{"-no-color", "-input=false"}, args...)
	}
	if command == "apply" || command == "plan" || command == "destroy" {
		for _, v := range w.vars {
			args = append(args, "-var="+v)
		}
	}
	cmd := exec.CommandContext(ctx, "terraform", append([]string{command}, args...)...)
	cmd.Dir, cmd.Env = w.dir, w.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must is run for what has to succeed.
func (w *workspace) must(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := w.run(t, command, args...)
	if err != nil {
		t.Fatalf("terraform %s %v: %v\n%s", command, args, err, out)
	}
	return out
}

// wantNoChanges plans once more what was applied.
func (w *workspace) wantNoChanges(t *testing.T, args ...string) {
	t.Helper()
	out, err := w.run(t, "plan", append([]string{"-detailed-exitcode"}, args...)...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 2 {
		t.Errorf("what was applied would be changed:\n%s", out)
	} else if err != nil {
		t.Fatalf("terraform plan: %v\n%s", err, out)
	}
}

// reimport has Terraform forget resources, and writes down that it is to import
// them.
func (w *workspace) reimport(t *testing.T, addresses []string) {
	t.Helper()
	var state struct {
		Resources []struct {
			Module, Type, Name string
			Instances          []struct{ Attributes struct{ ID string } }
		}
	}
	if err := json.Unmarshal([]byte(w.must(t, "state", "pull")), &state); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, r := range state.Resources {
		if len(r.Instances) > 0 {
			ids[r.Module+"."+r.Type+"."+r.Name] = r.Instances[0].Attributes.ID
		}
	}
	var blocks bytes.Buffer
	forget := []string{"rm"}
	for _, a := range addresses {
		address, id, _ := strings.Cut(a, "=")
		if id == "" {
			id = ids[address]
		}
		forget = append(forget, address)
		fmt.Fprintf(&blocks, "import {\n  to = %s\n  id = %q\n}\n", address, id)
	}
	w.must(t, "state", forget...)
	w.write(t, "import.tf", blocks.Bytes())
}

// functionFiles writes the packages of functions into a module's folder, and
// pushes an image.
func (w *workspace) functionFiles(t *testing.T, module string) {
	t.Helper()
	if out, err := server.Run("runtimes", "add", "python3.13"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	zip := func(name, file, text string) {
		w.write(t, filepath.Join(module, name), harness.Zip(map[string]string{file: text}))
	}
	for v := 1; v <= 2; v++ {
		zip(fmt.Sprintf("v%d.zip", v), "index.mjs", fmt.Sprintf("export const handler = async () => %d;\n", v))
		zip(fmt.Sprintf("layer%d.zip", v), "nodejs/v.txt", fmt.Sprint(v))
	}
	zip("python.zip", "index.py", "def handler(event, context):\n    return event\n")
	layer, err := harness.Layer(map[string]string{"function*": "#!/function\n"})
	if err != nil {
		t.Fatal(err)
	}
	img, err := harness.Image(v1.Config{Entrypoint: []string{"/function"}}, layer)
	if err != nil {
		t.Fatal(err)
	}
	uri, auth, err := server.Repository(t.Context(), "tf-image")
	if err != nil {
		t.Fatal(err)
	}
	if err := harness.Push(t.Context(), uri+":1", auth, img); err != nil {
		t.Fatal(err)
	}
	w.vars = append(w.vars, "image="+uri+":1")
}

// distributionFiles writes a certificate, a public key and a function for the
// edge into a module's folder.
func (w *workspace) distributionFiles(t *testing.T, module string) {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(w.certificate(t, module, "tf.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, filepath.Join(module, "public.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	w.write(t, filepath.Join(module, "edge.zip"), harness.Zip(map[string]string{"index.js": "exports.handler = async (event) => event.Records[0].cf.request;\n"}))
}

// certificate writes a certificate and its key into a module's folder.
func (w *workspace) certificate(t *testing.T, module, domain string) *rsa.PublicKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, filepath.Join(module, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	w.write(t, filepath.Join(module, "cert.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return &key.PublicKey
}
