// Package registry is a container registry: repositories of images, which are
// manifests that refer to layers. It has two front ends over one store: the OCI
// distribution protocol (Handler), which container tools push and pull by, and
// the methods of Registry, on which the ECR service is built.
//
// A repository must be created before something is pushed to it, as on ECR.
// Manifests and layers are blobs by their SHA-256, stored once however many
// repositories hold them; what a repository holds is a link. Everything that
// belongs to a repository is kept by its id, which no other will ever have, so
// that deleting it is one write: what is left of it is unreachable, and swept.
//
// # Garbage
//
// A layer that no image of its repository refers to loses its link a grace
// period after it was last pushed or asked for, and a blob without links is
// removed. Who pushes asks first which layers are there, or pushes them, and
// then puts the manifest: within the grace period none of them can go. It is as
// long as a token works, so no push takes longer.
package registry

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/fsync"
	"lapwing.dev/lapwing/internal/state"
)

// Limits, in bytes unless they say otherwise (Amazon ECR service quotas).
const (
	maxManifest = 4 << 20
	maxLayer    = 52_000 << 20
	maxUploads  = 1000 // under way at once
	// maxReferences is how many layers or manifests one manifest may list.
	maxReferences = 4200
)

// How long things last.
const (
	// grace is how long a layer stays that no image refers to.
	grace = 12 * time.Hour
	// uploadLife is how long an upload stays that nobody continues.
	uploadLife = 12 * time.Hour
	sweepEvery = time.Hour
)

// Options configures a Registry. All fields are required but Logger.
type Options struct {
	Store     *state.Store
	Dir       string // of uploads; on the file system of the store
	AccountID string
	Region    string
	Logger    *slog.Logger // nil discards
}

// Registry holds the repositories of one account. Its methods may be called
// from any goroutine. Errors that the client is to blame for are an *Error.
type Registry struct {
	opts    Options
	log     *slog.Logger
	started time.Time

	repositories *state.Collection[Repository] // by name
	images       *state.Collection[Image]      // by repository id and digest
	tags         *state.Collection[tag]        // by repository id and tag
	links        *state.Collection[link]       // by digest and repository id
	blobs        *state.Blobs

	// A repository's lock is held by all who change what belongs to it. gc is
	// read-locked while a blob becomes one and gets its link, and locked while
	// one without links is removed. Who needs both takes gc last.
	locks [64]sync.Mutex
	seed  maphash.Seed
	gc    sync.RWMutex

	mu      sync.Mutex // guards:
	uploads map[string]*upload
	asked   map[string]time.Time // when a link was last asked for, by key

	sweeping sync.Mutex
	wake     chan struct{}
	stop     context.CancelFunc
	done     chan struct{}
}

// Repository is a repository. Mutability and Exclusions are as the ECR API has
// them.
type Repository struct {
	ID         string
	Name       string
	Created    time.Time
	Mutability string
	Exclusions []string          `json:",omitempty"` // wildcards of tags for which the opposite holds
	Policy     string            `json:",omitempty"`
	Lifecycle  string            `json:",omitempty"`
	Evaluated  time.Time         `json:",omitzero"` // when Lifecycle last was
	Tags       map[string]string `json:",omitempty"`
}

// Image is a manifest in a repository.
type Image struct {
	Digest       digest.Digest
	MediaType    string
	ArtifactType string `json:",omitempty"`
	Size         int64  // of the layers and the configuration
	ManifestSize int64
	Pushed       time.Time
	Blobs        []digest.Digest   `json:",omitempty"` // layers and configuration
	Manifests    []digest.Digest   `json:",omitempty"` // of an index
	Subject      digest.Digest     `json:",omitempty"` // the manifest that this one says something about
	Annotations  map[string]string `json:",omitempty"` // of manifests with a subject
}

// tag is what a tag points to.
type tag struct {
	Digest digest.Digest
}

// link says that a repository holds a blob.
type link struct {
	Size  int64
	Added time.Time
}

// Open opens the registry and starts to sweep it, until Close.
func Open(ctx context.Context, o Options) (*Registry, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{
		opts: o, log: o.Logger, started: time.Now(), seed: maphash.MakeSeed(), asked: map[string]time.Time{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	var errs [5]error
	r.repositories, errs[0] = state.Collect[Repository](ctx, o.Store, "ecr-repositories")
	r.images, errs[1] = state.Collect[Image](ctx, o.Store, "ecr-images")
	r.tags, errs[2] = state.Collect[tag](ctx, o.Store, "ecr-tags")
	r.links, errs[3] = state.Collect[link](ctx, o.Store, "ecr-links")
	r.blobs, errs[4] = o.Store.BlobSet("ecr")
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if err := r.loadUploads(); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	var sweeping context.Context
	sweeping, r.stop = context.WithCancel(context.Background())
	go r.sweepUntil(sweeping)
	return r, nil
}

// Close ends the sweeping. The store must be closed after it.
func (r *Registry) Close() {
	r.stop()
	<-r.done
}

// AccountID returns the registry's id: that of its account.
func (r *Registry) AccountID() string { return r.opts.AccountID }

// lock locks what belongs to a repository.
func (r *Registry) lock(id string) (unlock func()) {
	l := &r.locks[maphash.String(r.seed, id)%uint64(len(r.locks))]
	l.Lock()
	return l.Unlock
}

// lockRepository finds a repository and locks it.
func (r *Registry) lockRepository(name string) (Repository, func(), error) {
	for {
		repo, err := r.Repository(name)
		if err != nil {
			return repo, nil, err
		}
		unlock := r.lock(repo.ID)
		again, err := r.Repository(name)
		if err == nil && again.ID == repo.ID {
			return again, unlock, nil
		}
		unlock()
	}
}

// repositoryName is the API model's pattern.
var repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// ValidName tells whether a repository may have this name.
func ValidName(name string) bool {
	return len(name) >= 2 && len(name) <= 256 && repositoryName.MatchString(name)
}

// tagName is that of the OCI distribution specification.
var tagName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// ValidTag tells whether an image may have this tag.
func ValidTag(tag string) bool { return tagName.MatchString(tag) }

// Repository returns a repository.
func (r *Registry) Repository(name string) (Repository, error) {
	item, ok := r.repositories.Get(name)
	if !ok {
		return Repository{}, r.noRepository(name)
	}
	return item.Value, nil
}

func (r *Registry) noRepository(name string) error {
	return fail(RepositoryNotFound, "The repository with name '%s' does not exist in the registry with id '%s'", name, r.opts.AccountID)
}

// Repositories returns up to limit repositories in the order of their names,
// from the first one after a name.
func (r *Registry) Repositories(after string, limit int) (page []Repository, more bool) {
	for item := range r.repositories.Scan("", after) {
		if item.Key == after {
			continue
		}
		if len(page) == limit {
			return page, true
		}
		page = append(page, item.Value)
	}
	return page, false
}

// CreateRepository makes a repository with the name, mutability, exclusions and
// tags of repo.
func (r *Registry) CreateRepository(ctx context.Context, repo Repository) (Repository, error) {
	repo.ID, repo.Created = uuid.NewString(), time.Now().UTC().Truncate(time.Millisecond)
	_, err := r.repositories.Create(ctx, repo.Name, repo)
	if errors.Is(err, state.ErrExists) {
		return repo, fail(RepositoryExists, "The repository with name '%s' already exists in the registry with id '%s'", repo.Name, r.opts.AccountID)
	}
	return repo, err
}

// ModifyRepository changes a repository by a function that may run several
// times; an error from it is returned and changes nothing.
func (r *Registry) ModifyRepository(ctx context.Context, name string, change func(*Repository) error) (Repository, error) {
	item, err := r.repositories.Modify(ctx, name, change)
	if errors.Is(err, state.ErrNotFound) {
		err = r.noRepository(name)
	}
	return item.Value, err
}

// DeleteRepository removes a repository; one that has images only with force.
func (r *Registry) DeleteRepository(ctx context.Context, name string, force bool) (Repository, error) {
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return repo, err
	}
	defer unlock()
	if !force {
		for range r.images.Scan(repo.ID+"/", "") {
			return repo, fail(RepositoryNotEmpty, "The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", name, r.opts.AccountID)
		}
	}
	for { // its revision may change meanwhile, but not its id
		item, ok := r.repositories.Get(name)
		if !ok {
			return repo, r.noRepository(name)
		}
		if err = r.repositories.Delete(ctx, name, item.Revision); !errors.Is(err, state.ErrConflict) {
			break
		}
	}
	if errors.Is(err, state.ErrNotFound) {
		err = r.noRepository(name)
	}
	r.sweepSoon()
	return repo, err
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(dir))
}
