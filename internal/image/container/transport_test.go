package container

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/state"
)

// naming writes a registries file that names the hosts of URLs.
func naming(t *testing.T, urls ...string) string {
	t.Helper()
	var hosts []string
	for _, u := range urls {
		hosts = append(hosts, strings.TrimPrefix(u, "http://"))
	}
	content, err := json.Marshal(map[string]any{"insecure": hosts})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "registries.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAddressesOfTheInternetAreToldFromOthers(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true, "64:ff9b::8.8.8.8": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false,
		"10.0.0.1": false, "172.31.0.1": false, "192.168.1.1": false, "100.64.0.1": false, "198.18.0.1": false, "240.0.0.1": false,
		"169.254.169.254": false, "fe80::1": false, "fec0::1": false, "fd00:ec2::254": false, "224.0.0.1": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "64:ff9b::10.0.0.1": false, "64:ff9b:1::1": false, "255.255.255.255": false,
	} {
		if got := public(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func TestRegistriesAtPrivateAddressesAreAskedOnlyWhenTheOperatorNamedThem(t *testing.T) {
	asked := ""
	hidden := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.URL.String() }))
	defer hidden.Close()
	host := func(u string) string { return strings.TrimPrefix(u, "http://") }
	_, port, _ := strings.Cut(host(hidden.URL), ":")
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",
		"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1},"layers":[]}`
	named := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.HasPrefix(r.URL.Path, "/v2/redirect/"), strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, hidden.URL+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write([]byte(manifest))
		}
	}))
	defer named.Close()
	// The challenge to log in comes with the first request, whatever the image.
	withToken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://localhost:`+port+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer withToken.Close()
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	blobs, err := store.BlobSet("test")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{AccountID: account, Architecture: "x86_64", Blobs: blobs, ConfigFile: naming(t, named.URL, withToken.URL)})
	for name, uri := range map[string]string{
		"address":       host(hidden.URL) + "/app:1",
		"name":          "localhost:" + port + "/app:1",
		"redirect":      host(named.URL) + "/redirect/app:1",
		"blob":          host(named.URL) + "/app:1",
		"token":         host(withToken.URL) + "/app:1",
		"any address":   "0.0.0.0:" + port + "/app:1",
		"IPv6 for IPv4": "[::ffff:127.0.0.1]:" + port + "/app:1",
		"metadata":      "169.254.169.254/latest/meta-data:1",
	} {
		if _, err := s.Resolve(t.Context(), uri, ""); !Is(err, NotPermitted) && !Is(err, InvalidURI) || asked != "" {
			t.Errorf("%s: %v; asked for %q", name, err, asked)
		}
	}
}

func TestThroughAProxyAddressesAreToldByTheURL(t *testing.T) {
	proxied := guardedTransport{proxy: func(*http.Request) (*url.URL, error) { return url.Parse("http://10.0.0.1:3128") }}
	for target, want := range map[string]bool{"https://registry.example.org/v2/": true, "https://8.8.8.8/": true, "http://169.254.169.254/": false, "http://[::1]:80/": false} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		if r, err := proxied.check(r); want != (err == nil) || want && r.Context().Value(anyAddress{}) == nil || !want && !Is(err, NotPermitted) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestHostsAreNamedWithTheirPorts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registries.json")
	if err := os.WriteFile(file, []byte(`{"auths":{"a.lan:5000":{},"https://b.lan/v1/":{}},"mirrors":{"docker.io":["http://c.lan"]},"insecure":["d.lan","[fd00::1]:5000"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := readRegistries(file)
	if err != nil {
		t.Fatal(err)
	}
	named := r.named()
	for host, want := range map[string]bool{
		"a.lan:5000": true, "a.lan:443": false, "b.lan:443": true, "b.lan:80": false, "c.lan:80": true, "c.lan:443": false,
		"d.lan:80": true, "d.lan:443": true, "index.docker.io:443": true, "[fd00::1]:5000": true,
	} {
		if named[host] != want {
			t.Errorf("%s: %v", host, named[host])
		}
	}
}
