package runtimes

import "errors"

// Status says whether a runtime can be used.
type Status string

// Statuses of a runtime.
const (
	StatusBuiltin   Status = "builtin"   // needs no interpreter
	StatusAdded     Status = "added"     // by Add
	StatusHost      Status = "host"      // the interpreter is one of this host
	StatusMissing   Status = "missing"   // nothing serves it
	StatusUnhealthy Status = "unhealthy" // what was added is damaged
)

// Listing is one runtime as 'lapwing runtimes' shows it.
type Listing struct {
	ID      string `json:"id"`
	Status  Status `json:"status"`
	Version string `json:"version,omitempty"` // of the interpreter
	Source  string `json:"source,omitempty"`  // where the interpreter is from
	// Path is the interpreter on this host; empty where it only runs in its own
	// user land.
	Path string `json:"path,omitempty"`
	// Addable tells from where Add would bring it; empty where it can't.
	Addable string `json:"addable,omitempty"`
	// Hint says what to do where the runtime is missing or unhealthy.
	Hint string `json:"hint,omitempty"`
}

// List returns all runtimes in the order of the catalog.
func (r *Registry) List() []Listing {
	list := make([]Listing, 0, len(specs))
	for _, s := range specs {
		list = append(list, r.listing(s))
	}
	return list
}

func (r *Registry) listing(s spec) Listing {
	l := Listing{ID: s.id}
	if src, err := r.sourceOf(s); err == nil {
		l.Addable = src.source()
	}
	r.finding.Lock()
	in, err := r.find(s)
	r.finding.Unlock()
	var missing *UnavailableError
	switch {
	case err == nil:
		l.Status, l.Version, l.Source, l.Path = StatusHost, in.version, in.origin, in.program
		switch {
		case in.added:
			l.Status = StatusAdded
		case s.language == nil:
			l.Status = StatusBuiltin
		}
	case errors.As(err, &missing):
		l.Status, l.Hint = StatusMissing, missing.How
	default:
		l.Status, l.Hint = StatusUnhealthy, err.Error()
	}
	return l
}
