package location

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

const (
	rolesFile    = "roles.json"
	rolesVersion = 1

	// roleTTL is the life of credentials; they are renewed when they are roleAge
	// old, so that those of a location that is cut off last for eleven hours.
	roleTTL = 12 * time.Hour
	roleAge = time.Hour
	// roleTimeout is how long a function that starts waits for the core.
	roleTimeout = 2 * time.Second
)

// roles holds credentials of the roles of functions, so that these start while the
// core cannot be reached. All environments of a function have the same ones.
type roles struct {
	path string
	node *Node
	log  *slog.Logger

	mu   sync.Mutex
	held map[string]held // by role and session
}

// held are credentials, as they are in the file.
type held struct {
	Role    string
	Session credentials.Session
	Name    string // of the session
	Issued  time.Time
}

type rolesContent struct {
	Version int
	Held    []held
}

func openRoles(path string, n *Node) (*roles, error) {
	r := &roles{path: path, node: n, log: n.log, held: map[string]held{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	var c rolesContent
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: damaged", path) // the error could quote a secret
	}
	if c.Version > rolesVersion {
		return nil, fmt.Errorf("%s has format version %d, written by a newer lapwing; this one reads up to %d", path, c.Version, rolesVersion)
	}
	for _, h := range c.Held {
		r.held[h.Role+" "+h.Name] = h
	}
	return r, nil
}

// Names of the sessions of locations themselves.
const (
	originSession = "origins"
	logSession    = "logs"
)

// IssueFor returns credentials of CloudFront itself, for requests to origins, or
// of LogDelivery: they are the only users of locations.
func (n *Node) IssueFor(user aws.Identity, ttl time.Duration) (credentials.Session, error) {
	switch user.ARN {
	case CloudFront:
		return n.Issue(CloudFront, originSession, ttl)
	case LogDelivery:
		return n.Issue(LogDelivery, logSession, ttl)
	}
	return credentials.Session{}, fmt.Errorf("edge locations do not act as %s", user.ARN)
}

// Issue returns credentials of a role. Those that are held are as good as new ones;
// where they have expired and the core cannot be reached, they are returned too:
// the function can do what it does without AWS, whose endpoint is the core.
func (n *Node) Issue(role, session string, ttl time.Duration) (credentials.Session, error) {
	r := n.roles
	r.mu.Lock()
	h, ok := r.held[role+" "+session]
	r.mu.Unlock()
	if ok && time.Since(h.Issued) < 2*roleAge {
		return h.Session, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), roleTimeout)
	defer cancel()
	fresh, err := r.fetch(ctx, role, session)
	switch {
	case err == nil:
		return fresh.Session, nil
	case !ok:
		return credentials.Session{}, fmt.Errorf("credentials of %s: %w", role, err)
	}
	if time.Now().After(h.Session.Expiration) {
		r.log.Warn("the credentials that a function gets have expired: the core does not answer", "role", role, "error", err)
	}
	return h.Session, nil
}

// fetch gets credentials from the core and keeps them.
func (r *roles) fetch(ctx context.Context, role, session string) (held, error) {
	var a credentialsAnswer
	if err := r.node.call(ctx, pathCredentials, credentialsRequest{Role: role, Session: session, Seconds: int(roleTTL / time.Second)}, &a); err != nil {
		return held{}, err
	}
	h := held{Role: role, Name: session, Session: a.Session, Issued: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[role+" "+session] = h
	return h, r.save()
}

// save writes the file, with r.mu held.
func (r *roles) save() error {
	c := rolesContent{Version: rolesVersion}
	for key, h := range r.held {
		if time.Since(h.Session.Expiration) > roleTTL {
			delete(r.held, key) // of a function that is gone
			continue
		}
		c.Held = append(c.Held, h)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return replaceFile(r.path, b)
}

// run keeps credentials of all functions fresh until ctx ends: those of a new one
// come with its record.
func (r *roles) run(ctx context.Context, replicas *state.Collection[distribution.LambdaReplica]) {
	for ctx.Err() == nil {
		failed := false
		wanted := []held{{Role: CloudFront, Name: originSession}}
		for item := range replicas.Scan("", "") {
			wanted = append(wanted, held{Role: item.Value.Role, Name: sessionOf(item.Value)})
		}
		for _, w := range wanted {
			r.mu.Lock()
			h, ok := r.held[w.Role+" "+w.Name]
			r.mu.Unlock()
			if ok && time.Since(h.Issued) < roleAge {
				continue
			}
			if _, err := r.fetch(ctx, w.Role, w.Name); err != nil {
				r.log.Debug("credentials of a role were not renewed", "role", w.Role, "error", err)
				failed = true
			}
		}
		wait := time.Minute
		if failed {
			wait = retryEvery
		}
		r.await(ctx, replicas, wait)
	}
}

// await returns when the replicas have changed, or after d.
func (r *roles) await(ctx context.Context, replicas *state.Collection[distribution.LambdaReplica], d time.Duration) {
	mark := replicas.Mark()
	for until := time.Now().Add(d); time.Now().Before(until) && replicas.Mark() == mark; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

// sessionOf returns the name of a function's sessions, as the worker asks for them.
func sessionOf(r distribution.LambdaReplica) string { return credentials.SessionName(r.LocalName()) }
