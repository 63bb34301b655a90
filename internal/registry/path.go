package registry

import "strings"

// place is what a path of the distribution protocol names.
type place struct {
	kind endpoint
	name string // of the repository
	ref  string // tag, digest or id of an upload
}

type endpoint int

const (
	endBase endpoint = iota
	endCatalog
	endManifest
	endBlob
	endUploads
	endUpload
	endTags
	endReferrers
)

// maxPath bounds the paths that are taken apart.
const maxPath = 1024

// parsePath reads a path below /v2/. A repository's name may have any number of
// parts, so that the path is read from its end.
func parsePath(path string) (place, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || ok && rest == "":
		return place{kind: endBase}, true
	case !ok || len(path) > maxPath:
		return place{}, false
	case rest == "_catalog":
		return place{kind: endCatalog}, true
	}
	parts := strings.Split(rest, "/")
	n := len(parts)
	if n < 3 {
		return place{}, false
	}
	p := place{name: strings.Join(parts[:n-2], "/"), ref: parts[n-1]}
	switch kind := parts[n-2]; {
	case kind == "tags" && p.ref == "list":
		p.kind, p.ref = endTags, ""
	case kind == "manifests":
		p.kind = endManifest
	case kind == "referrers":
		p.kind = endReferrers
	case kind == "blobs" && p.ref == "uploads":
		p.kind, p.ref = endUploads, ""
	case kind == "blobs":
		p.kind = endBlob
	case kind == "uploads" && n > 3 && parts[n-3] == "blobs":
		p.name, p.kind = strings.Join(parts[:n-3], "/"), endUpload
		if p.ref == "" {
			p.kind = endUploads
		}
	default:
		return place{}, false
	}
	return p, p.ref != "" || p.kind == endTags || p.kind == endUploads
}
