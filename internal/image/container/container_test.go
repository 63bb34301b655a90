package container

import (
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	containers "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/state"
)

const account = "123456789012"

func TestURIsLeadToTheRegistryThatTheyName(t *testing.T) {
	s := New(Options{AccountID: account, Hosts: []string{"127.0.0.1:4566", "localhost:4566"}, Domains: []string{"lapwing.example.org"}})
	const pin = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		uri                   string
		host, repository, ref string // no ref: refused
	}{
		{account + ".dkr.ecr.eu-central-1.amazonaws.com/team/app:1", "", "team/app", "1"},
		{account + ".dkr.ecr.us-east-1.lapwing.example.org:4566/app", "", "app", "latest"},
		{"127.0.0.1:4566/app:1", "", "app", "1"},
		{"localhost:4566/app@" + pin, "", "app", pin},
		{"lapwing.example.org:8443/app:1@" + pin, "", "app", pin},
		{"here.example.org/app:1", "", "app", "1"},
		{"127.0.0.1:5000/app:1", "127.0.0.1:5000", "app", "1"},
		{"210987654321.dkr.ecr.eu-central-1.amazonaws.com/app:1", "210987654321.dkr.ecr.eu-central-1.amazonaws.com", "app", "1"},
		{"debian:13", "index.docker.io", "library/debian", "13"},
		{"ghcr.io/a/b", "ghcr.io", "a/b", "latest"},
		{"", "", "", ""},
		{"127.0.0.1:4566/App:1", "", "", ""},
		{"127.0.0.1:4566/app@sha256:0123", "", "", ""},
		{"127.0.0.1:4566/app@sha512:" + strings.Repeat("0", 128), "", "", ""},
		{"127.0.0.1:4566/a:" + strings.Repeat("x", 1024), "", "", ""},
		{"https://ghcr.io/a/b", "", "", ""},
		{"127.0.0.1:4566/../secret:1", "", "", ""},
	} {
		ref, err := s.parseURI(tt.uri, "here.example.org")
		switch {
		case tt.ref == "" && !Is(err, InvalidURI):
			t.Errorf("%s: got %+v, %v", tt.uri, ref, err)
		case tt.ref != "" && (err != nil || ref.host != tt.host || ref.repository != tt.repository || ref.identifier() != tt.ref):
			t.Errorf("%s: got %+v, %v", tt.uri, ref, err)
		}
	}
}

func TestRegistriesFileIsReadAsDockersAndWhatItCannotMeanIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registries.json")
	for content, words := range map[string]string{
		`{"auths":{"a.example.org":{"auth":"cm9ib3Q6c2VjcmV0"},"https://index.docker.io/v1/":{"username":"u","password":"p"}},
		  "mirrors":{"docker.io":["https://mirror.example.org"]},"insecure":["b.example.org"],"HttpHeaders":{}}`: "",
		`{"credsStore":"desktop"}`:                  "put the credentials into auths",
		`{"credHelpers":{"a":"b"}}`:                 "put the credentials into auths",
		`{"mirrors":{"a":["mirror.example.org"]}}`:  "want https://HOST",
		`{"mirrors":{"a":["https://m/some/path"]}}`: "want https://HOST",
		`{"auths":`: "unexpected end",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readRegistries(file)
		if words != "" {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v", content, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if c := r.candidates("index.docker.io"); len(c) != 2 || c[0].host != "mirror.example.org" || c[0].plain || c[0].auth != authn.Anonymous || user(t, c[1]) != "u:p" {
			t.Errorf("candidates for docker.io are %+v", c)
		}
		if c := r.candidates("a.example.org"); len(c) != 1 || user(t, c[0]) != "robot:secret" || c[0].plain {
			t.Errorf("candidates are %+v", c)
		}
		if c := r.candidates("b.example.org"); len(c) != 1 || !c[0].plain {
			t.Errorf("candidates are %+v", c)
		}
	}
	if r, err := readRegistries(filepath.Join(t.TempDir(), "none")); err != nil || len(r.candidates("a")) != 1 {
		t.Errorf("without a file: %+v, %v", r, err)
	}
}

func user(t *testing.T, c candidate) string {
	t.Helper()
	a, err := c.auth.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	return a.Username + ":" + a.Password
}

func TestPulledImagesAreKeptMadeAgainAndCollected(t *testing.T) {
	pulls := 0
	remoteRegistry := containers.New(containers.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			pulls++
		}
		remoteRegistry.ServeHTTP(w, r)
	}))
	defer srv.Close()
	uri := strings.TrimPrefix(srv.URL, "http://") + "/app:1"
	random, err := random.Image(2000, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := random.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if random, err = mutate.ConfigFile(random, config); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(uri)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, random); err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	blobs, err := store.BlobSet("test")
	if err != nil {
		t.Fatal(err)
	}
	images, err := image.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{AccountID: account, Architecture: "x86_64", Images: images, Blobs: blobs, ConfigFile: naming(t, srv.URL)})
	img, err := s.Resolve(t.Context(), uri, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 0, 1} { // the last time a layer is damaged
		pulls = 0
		if want == 1 {
			layers, err := random.Layers()
			if err != nil {
				t.Fatal(err)
			}
			d, err := layers[0].Digest()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(blobs.Path(state.Digest(d.Hex)), []byte("damaged"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want == 3 {
			pulls = 1 // the configuration, by Resolve
		}
		if err := s.Prepare(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		if pulls != want || !images.Has(img.Root) {
			t.Errorf("%d pulls, want %d", pulls, want)
		}
		if err := images.Remove(t.Context(), img.Root); err != nil {
			t.Fatal(err)
		}
	}
	for used, want := range map[*Image]int{&img: 4, nil: 0} {
		var all []Image
		if used != nil {
			all = []Image{*used}
			if err := s.Prepare(t.Context(), img); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Collect(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		left := 0
		for range blobs.All() {
			left++
		}
		if left != want {
			t.Errorf("%d blobs are left, want %d", left, want)
		}
	}
}

func FuzzManifestAndConfiguration(f *testing.F) {
	const d = `"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1`
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",`+d+`},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd",`+d+`}]}`),
		[]byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=b","=","c"],"WorkingDir":"x"},"rootfs":{"diff_ids":["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]}}`))
	f.Add([]byte(`{"manifests":[{"platform":{"os":"linux","architecture":"amd64"},`+d+`}]}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		mediaType := mediaTypeOf(manifest)
		if isIndex(mediaType) {
			_, _ = choose(manifest, "x86_64")
		}
		m, err := parseManifest(manifest, mediaType)
		if err != nil {
			return
		}
		if c, err := parseConfig(config, len(m.Layers)); err == nil {
			if s := settingsOf(c); !filepath.IsAbs(s.WorkingDirectory) {
				t.Errorf("working directory %q", s.WorkingDirectory)
			}
		}
	})
}
