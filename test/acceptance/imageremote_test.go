package acceptance_test

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"lapwing.dev/lapwing/test/harness"

	containers "github.com/google/go-containerregistry/pkg/registry"
)

// remoteRegistry is a registry that is not Lapwing's, with a login.
type remoteRegistry struct {
	host  string
	pulls atomic.Int64                                  // of layers and configurations
	spoil func(http.ResponseWriter, *http.Request) bool // answers instead of the registry
}

const remoteUser, remotePassword = "robot", "let me in"

func startRegistry(t *testing.T) *remoteRegistry {
	t.Helper()
	r := &remoteRegistry{}
	inner := containers.New(containers.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != remoteUser || password != remotePassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="remote"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		if r.spoil != nil && r.spoil(w, req) {
			return
		}
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			r.pulls.Add(1)
		}
		inner.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	r.host = strings.TrimPrefix(srv.URL, "http://")
	return r
}

func (r *remoteRegistry) auth() authn.Authenticator {
	return &authn.Basic{Username: remoteUser, Password: remotePassword}
}

// config writes a configuration of registries and returns its name.
func registriesFile(t *testing.T, content map[string]any) string {
	t.Helper()
	b, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "registries.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func login() map[string]any {
	return map[string]any{"username": remoteUser, "password": remotePassword}
}

// refuses checks that an image is refused when a function is to be made of it.
func refuses(t *testing.T, s *harness.Server, uri, code, words string) {
	t.Helper()
	_, err := lambda.NewFromConfig(s.Config()).CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: aws.String("refused"), PackageType: types.PackageTypeImage,
		Role: aws.String("arn:aws:iam::" + s.Account() + ":role/r"), Code: &types.FunctionCode{ImageUri: &uri},
	})
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() != code || e.ErrorMessage() != words {
		t.Errorf("%s: got %v, want %s: %s", uri, err, code, words)
	}
}

func TestImagesOfARemoteRegistryArePulledOnceAndOutliveIt(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	pushImage(t, r.host+"/team/app:1", r.auth(), imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, layerOf(t, named("handler", imageProgram(t)))))
	file := registriesFile(t, map[string]any{
		"auths": map[string]any{r.host: login()},
		// The image is asked for at a registry that does not answer, too.
		"mirrors": map[string]any{"registry.invalid": []string{"http://" + r.host}},
	})
	s := startWith(t, "--registries", file)
	if got := createImage(t, s, "one", r.host+"/team/app:1"); got.Configuration.State != types.StateActive {
		t.Fatalf("it is %s: %s", got.Configuration.State, aws.ToString(got.Configuration.StateReason))
	}
	askImage(t, s, "one", "", "{}")
	pulls := r.pulls.Load()
	if got := createImage(t, s, "two", "registry.invalid/team/app:1"); got.Configuration.State != types.StateActive || !strings.HasPrefix(*got.Code.ResolvedImageUri, "registry.invalid/team/app@sha256:") {
		t.Fatalf("from a mirror it is %s: %s", got.Configuration.State, aws.ToString(got.Configuration.StateReason))
	}
	if again := r.pulls.Load(); again != pulls {
		t.Errorf("%d blobs were pulled again", again-pulls)
	}
	refuses(t, s, r.host+"/team/app:2", "InvalidParameterValueException", "Source image "+r.host+"/team/app:2 does not exist. Provide a valid source image.")
	refuses(t, s, "Not/An image", "InvalidParameterValueException", "Source image Not/An image is not valid. Provide a valid source image.")

	// The registry is gone: what is known goes on, be it unpacked or not.
	r.spoil = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "gone", http.StatusServiceUnavailable)
		return true
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Data, "images")); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := settled(t, s, "one"); got.Configuration.State != types.StateActive {
		t.Fatalf("after a restart it is %s: %s\n%s", got.Configuration.State, aws.ToString(got.Configuration.StateReason), s.Log())
	}
	askImage(t, s, "one", "", "{}")
	if got := createImage(t, s, "three", r.host+"/team/app:1"); got.Configuration.State != types.StateActive {
		t.Errorf("without its registry it is %s: %s", got.Configuration.State, aws.ToString(got.Configuration.StateReason))
	}
}

func TestImagesThatCannotBeUsedFailWithTheReason(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	stranger := startRegistry(t) // there is no login for
	unnamed := startRegistry(t)
	s := startWith(t, "--registries", registriesFile(t, map[string]any{"auths": map[string]any{r.host: login()}, "insecure": []string{stranger.host}}))
	good := imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, layerOf(t, named("handler", imageProgram(t))))
	pushImage(t, r.host+"/good:1", r.auth(), good)
	pushImage(t, stranger.host+"/good:1", stranger.auth(), good)
	uri, auth := repository(t, s, "good")
	pushImage(t, uri+":1", auth, good)

	t.Run("before they are pulled", func(t *testing.T) {
		c := ecr.NewFromConfig(s.Config())
		refuses(t, s, uri+":2", "InvalidParameterValueException", "Source image "+uri+":2 does not exist. Provide a valid source image.")
		refuses(t, s, stranger.host+"/good:1", "AccessDeniedException", "Lambda does not have permission to access the ECR image. Check the ECR permissions.")
		refuses(t, s, unnamed.host+"/good:1", "InvalidParameterValueException", "Source image "+unnamed.host+"/good:1 cannot be pulled: "+unnamed.host+" has a loopback, link-local or private address. "+
			"The operator of this server permits such a registry by naming its host in registries.json (auths, mirrors or insecure).")
		_, err := c.PutImage(t.Context(), &ecr.PutImageInput{RepositoryName: aws.String("good"), ImageTag: aws.String("index"), ImageManifest: aws.String(
			`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)})
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, s, uri+":index", "InvalidParameterValueException", "The image manifest, config or layer media type for the source image "+uri+":index is not supported.")
	})

	other, err := good.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	other = other.DeepCopy()
	other.Architecture = "riscv64"
	alien, err := mutate.ConfigFile(good, other)
	if err != nil {
		t.Fatal(err)
	}
	pushImage(t, r.host+"/alien:1", r.auth(), alien)
	broken := imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, brokenLayer{layerOf(t, named("x", "y"))})
	pushImage(t, r.host+"/broken:1", r.auth(), broken)
	lacking := imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, layerOf(t, named("handler", "lacking")))
	pushImage(t, r.host+"/lacking:1", r.auth(), lacking)
	ls, err := lacking.Layers()
	if err != nil {
		t.Fatal(err)
	}
	gone, err := ls[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	closed := imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, layerOf(t, named("handler", "closed")))
	pushImage(t, r.host+"/closed:1", r.auth(), closed)
	if ls, err = closed.Layers(); err != nil {
		t.Fatal(err)
	}
	denied, err := ls[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	r.spoil = func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case strings.Contains(req.URL.Path, gone.Hex):
			http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
		case strings.Contains(req.URL.Path, denied.Hex):
			http.Error(w, `{"errors":[{"code":"DENIED"}]}`, http.StatusForbidden)
		default:
			return false
		}
		return true
	}
	for _, tt := range []struct{ name, code, words string }{
		{"alien", "InvalidImage", "the image is for linux/riscv64"},
		{"broken", "InvalidImage", "its content has the digest"},
		{"lacking", "InvalidImage", "is missing"},
		{"closed", "ImageAccessDenied", "Lambda does not have permission to access the ECR image. Check the ECR permissions."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := createImage(t, s, tt.name, r.host+"/"+tt.name+":1").Configuration
			if got.State != types.StateFailed || string(got.StateReasonCode) != tt.code || !strings.Contains(aws.ToString(got.StateReason), tt.words) {
				t.Errorf("created it is %s, %s: %s", got.State, got.StateReasonCode, aws.ToString(got.StateReason))
			}
			// Of a function that works, the update fails and it goes on as it was.
			name := "was-good-" + tt.name
			if got := createImage(t, s, name, r.host+"/good:1").Configuration; got.State != types.StateActive {
				t.Fatalf("it is %s: %s", got.State, aws.ToString(got.StateReason))
			}
			c := lambda.NewFromConfig(s.Config())
			if _, err := c.UpdateFunctionCode(t.Context(), &lambda.UpdateFunctionCodeInput{FunctionName: &name, ImageUri: aws.String(r.host + "/" + tt.name + ":1")}); err != nil {
				t.Fatal(err)
			}
			got = settled(t, s, name).Configuration
			if got.State != types.StateActive || got.LastUpdateStatus != types.LastUpdateStatusFailed || string(got.LastUpdateStatusReasonCode) != tt.code {
				t.Errorf("updated it is %s, %s, %s", got.State, got.LastUpdateStatus, got.LastUpdateStatusReasonCode)
			}
			askImage(t, s, name, "", "{}")
			nothingHalfWritten(t, s)
		})
	}

	t.Run("deleted", func(t *testing.T) {
		createImage(t, s, "deleted", uri+":1")
		c := lambda.NewFromConfig(s.Config())
		if _, err := ecr.NewFromConfig(s.Config()).BatchDeleteImage(t.Context(), &ecr.BatchDeleteImageInput{
			RepositoryName: aws.String("good"), ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: aws.String("1")}},
		}); err != nil {
			t.Fatal(err)
		}
		askImage(t, s, "deleted", "", "{}")
		if _, err := c.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{FunctionName: aws.String("deleted"), Timeout: aws.Int32(61)}); err != nil {
			t.Fatal(err)
		}
		got := settled(t, s, "deleted").Configuration
		if got.LastUpdateStatusReasonCode != "ImageDeleted" || aws.ToString(got.LastUpdateStatusReason) != "The function is trying to use a deleted image." {
			t.Errorf("updated it is %s, %s: %s", got.LastUpdateStatus, got.LastUpdateStatusReasonCode, aws.ToString(got.LastUpdateStatusReason))
		}
		askImage(t, s, "deleted", "", "{}")
	})
}

// brokenLayer is a layer whose content is not what the image's configuration
// says.
type brokenLayer struct{ v1.Layer }

func (brokenLayer) DiffID() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, nil
}

// nothingHalfWritten checks that no temporary file of a pull or an image is left.
func nothingHalfWritten(t *testing.T, s *harness.Server) {
	t.Helper()
	for _, pattern := range []string{"images/tmp-*", "blobs/container-images/tmp/*"} {
		left, err := filepath.Glob(filepath.Join(s.Data, pattern))
		if err != nil || len(left) > 0 {
			t.Errorf("%v, %v are left", left, err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.Data, "blobs/container-images/tmp")); err != nil {
		t.Error(err)
	}
}
