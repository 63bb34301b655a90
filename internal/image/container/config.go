package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// registries is what the operator says of remote registries: a file that
// docker's config.json is valid for, too. It is read for each pull, so that
// credentials can be renewed at any time.
type registries struct {
	// Auths holds the credentials, by host, as `docker login` writes them.
	Auths map[string]authn.AuthConfig `json:"auths"`
	// Mirrors are the base URLs of registries that are asked before the one
	// itself, by its host.
	Mirrors map[string][]string `json:"mirrors"`
	// Insecure lists hosts that are spoken to without TLS.
	Insecure []string `json:"insecure"`

	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

// maxRegistries bounds the file, in bytes.
const maxRegistries = 1 << 20

// readRegistries reads the file; one that is not there says nothing.
func readRegistries(file string) (registries, error) {
	var r registries
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) || file == "" {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("registry configuration: %w", err)
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxRegistries))
	if err != nil {
		return r, fmt.Errorf("registry configuration: %w", err)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("registry configuration %s: %w", file, err)
	}
	if r.CredsStore != "" || len(r.CredHelpers) > 0 {
		return r, fmt.Errorf("registry configuration %s: credsStore and credHelpers are not supported: put the credentials into auths", file)
	}
	for host, mirrors := range r.Mirrors {
		for _, m := range mirrors {
			if u, err := url.Parse(m); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path != "/" {
				return r, fmt.Errorf("registry configuration %s: mirror %q of %s: want https://HOST[:PORT]", file, m, host)
			}
		}
	}
	return r, nil
}

// candidates are the registries that may have an image of a host's, in the
// order in which they are asked.
func (r registries) candidates(host string) (list []candidate) {
	for _, alias := range aliases(host) {
		for _, m := range r.Mirrors[alias] {
			u, err := url.Parse(m)
			if err != nil {
				continue // checked when the file was read
			}
			list = append(list, candidate{host: u.Host, plain: u.Scheme == "http", auth: r.auth(u.Host)})
		}
	}
	return append(list, candidate{host: host, plain: slices.Contains(r.Insecure, host), auth: r.auth(host)})
}

// named are the hosts, with their ports, that the file names. They may have any
// address.
func (r registries) named() map[string]bool {
	named := map[string]bool{}
	add := func(entry string) {
		if !strings.Contains(entry, "://") { // by the port that either scheme implies
			named[hostPort(&url.URL{Scheme: "http", Host: entry})] = true
			entry = "https://" + entry
		}
		if u, err := url.Parse(entry); err == nil && u.Host != "" {
			named[hostPort(u)] = true
		}
		if entry == "https://docker.io" {
			named[name.DefaultRegistry+":443"] = true
		}
	}
	for host := range r.Auths {
		add(host)
	}
	for host, mirrors := range r.Mirrors {
		add(host)
		for _, m := range mirrors {
			add(m)
		}
	}
	for _, host := range r.Insecure {
		add(host)
	}
	return named
}

func (r registries) auth(host string) authn.Authenticator {
	for _, alias := range aliases(host) {
		if a, ok := r.Auths[alias]; ok {
			return authn.FromConfig(a)
		}
	}
	return authn.Anonymous
}

// aliases are the names that a host goes by in such files.
func aliases(host string) []string {
	if host == name.DefaultRegistry {
		return []string{host, "docker.io", authn.DefaultAuthKey}
	}
	return []string{host, "https://" + host}
}

// candidate is a registry that may have an image.
type candidate struct {
	host  string
	plain bool // without TLS
	auth  authn.Authenticator
}
