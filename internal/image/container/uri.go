package container

import (
	"net"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/registry"
)

// reference is an image's URI taken apart: an image in a repository of a
// registry, by tag or digest.
type reference struct {
	host       string // of a remote registry; empty: our own
	repository string
	tag        string
	digest     digest.Digest // wins over tag
}

// identifier is the last part of a manifest's path.
func (r reference) identifier() string {
	if r.digest != "" {
		return string(r.digest)
	}
	return r.tag
}

// parseURI takes a URI apart. here is the host by which the client reached
// Lapwing, whose images are our own registry's.
func (s *Store) parseURI(uri, here string) (reference, error) {
	bad := func(err error) (reference, error) { return reference{}, &Error{InvalidURI, err} }
	if len(uri) > 1024 || strings.Contains(uri, "//") {
		return bad(nil)
	}
	rest, pinned, ok := strings.Cut(uri, "@")
	d := digest.Digest(pinned)
	if ok && (d.Validate() != nil || d.Algorithm() != digest.SHA256) {
		return bad(nil)
	}
	t, err := name.NewTag(rest) // "latest" where there is none
	if err != nil {
		return bad(err)
	}
	ref := reference{host: t.RegistryStr(), repository: t.RepositoryStr(), tag: t.TagStr(), digest: d}
	if !s.own(ref.host, here) {
		return ref, nil
	}
	ref.host = ""
	if !registry.ValidName(ref.repository) {
		return bad(nil)
	}
	return ref, nil
}

// own tells whether a host is one of our own registry: one of Lapwing's
// addresses, or the account's name in ECR, whatever the domain.
func (s *Store) own(host, here string) bool {
	if strings.HasPrefix(host, s.opts.AccountID+".dkr.ecr.") {
		return true
	}
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	return here != "" && host == here || slices.Contains(s.opts.Hosts, host) || slices.Contains(s.opts.Domains, bare)
}
