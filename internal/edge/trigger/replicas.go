package trigger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/state"
)

// retryDelay is the wait after a replica could not be prepared.
const retryDelay = 2 * time.Second

// Packages gives access to code packages where the Lambda service is elsewhere.
type Packages interface {
	// OpenPackage opens the package with this SHA-256, in hexadecimal.
	OpenPackage(ctx context.Context, digest string) (p Package, size int64, err error)
}

// Package is a code package, a zip archive. Its reader closes it.
type Package interface {
	io.ReaderAt
	io.Closer
}

// replicas keeps the versions of functions that this location runs ready, from
// the records of what all locations run.
type replicas struct {
	records  *state.Collection[distribution.LambdaReplica]
	region   string
	account  string
	images   *image.Store
	packages Packages // nil: the Lambda service keeps the images
	retire   func(functionARN, version string)
	log      *slog.Logger

	mu      sync.RWMutex
	ready   map[string]*replica // by ARN
	applied atomic.Uint64
}

// replica is a version that can run here.
type replica struct {
	version *function.Version
	arn     string // of the replica, which is what it is invoked as
	digest  string
}

// get returns a version that is ready, or nil.
func (r *replicas) get(arn string) *replica {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready[arn]
}

// run follows the records until ctx ends. One that cannot be prepared holds the
// later ones up, so that applied says of all of them that they are there; that is
// only where a package cannot be had, which is then so for the others too.
func (r *replicas) run(ctx context.Context) {
	for change := range r.records.Watch(ctx) {
		if change.Deleted {
			r.drop(ctx, change.Key)
		} else if !r.take(ctx, change.Value) {
			return
		}
		r.applied.Store(max(r.applied.Load(), change.Revision))
	}
}

// take prepares a replica, as often as it needs. It tells whether it came to
// that before ctx ended.
func (r *replicas) take(ctx context.Context, rec distribution.LambdaReplica) bool {
	for {
		err := r.prepare(ctx, rec)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.log.Error("function cannot be made ready at this edge location", "function", rec.ARN, "error", err)
		if errors.Is(err, errNewer) {
			return true // what is here goes on
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(retryDelay):
		}
	}
}

var errNewer = errors.New("its record is of a newer format")

func (r *replicas) prepare(ctx context.Context, rec distribution.LambdaReplica) error {
	if rec.Format > distribution.Format {
		return errNewer
	}
	if err := r.ensure(ctx, rec.Code); err != nil {
		return err
	}
	v := r.version(rec)
	r.mu.Lock()
	old := r.ready[rec.ARN]
	r.ready[rec.ARN] = &replica{version: v, arn: v.ARN(), digest: rec.Code}
	r.mu.Unlock()
	if old != nil && old.version.Revision != v.Revision {
		r.retire(old.version.FunctionARN(), old.version.Version)
	}
	return nil
}

// ensure has the image of a code package made.
func (r *replicas) ensure(ctx context.Context, digest string) error {
	switch {
	case r.images.Has(digest):
		return nil
	case r.packages == nil:
		return fmt.Errorf("the image of its code package %s is not there", digest)
	}
	p, size, err := r.packages.OpenPackage(ctx, digest)
	if err != nil {
		return fmt.Errorf("fetch its code package: %w", err)
	}
	defer p.Close()
	img, err := r.images.Unpack(ctx, p, size)
	if err == nil && img.Digest != digest {
		err = errors.Join(fmt.Errorf("its code package has the digest %s, not %s", img.Digest, digest), r.images.Remove(ctx, img.Digest))
	}
	return err
}

// drop gives a replica up.
func (r *replicas) drop(ctx context.Context, arn string) {
	r.mu.Lock()
	old := r.ready[arn]
	delete(r.ready, arn)
	shared := false
	for _, other := range r.ready {
		shared = shared || old != nil && other.digest == old.digest
	}
	r.mu.Unlock()
	if old == nil {
		return
	}
	r.retire(old.version.FunctionARN(), old.version.Version)
	if r.packages == nil || shared {
		return
	}
	// Environments that still run have the image open.
	if err := r.images.Remove(ctx, old.digest); err != nil {
		r.log.Warn("image of a function that is gone remains", "function", arn, "error", err)
	}
}

// version makes what the data plane needs to know. A replica's name is that of
// the function with its Region before it, its Region the location's, and its log
// group follows from both (CloudFront developer guide, "Edge function logs").
func (r *replicas) version(rec distribution.LambdaReplica) *function.Version {
	name := rec.LocalName()
	group := "/aws/lambda/" + name
	if rec.Group != "" {
		group = rec.Home() + "." + rec.Group
	}
	arch := "x86_64"
	if runtime.GOARCH == "arm64" {
		arch = "arm64"
	}
	return &function.Version{
		Account: r.account, Region: r.region, Name: name, Version: rec.Version, Revision: rec.Revision,
		Runtime: rec.Runtime, RuntimeVersionARN: rec.RuntimeVersionARN, Handler: rec.Handler, Architecture: arch, Role: rec.Role,
		MemoryMB: rec.MemoryMB, Timeout: rec.Timeout, EphemeralMB: rec.EphemeralMB,
		Code: r.images.Path(rec.Code),
		Logging: function.Logging{
			Format: rec.LogFormat, ApplicationLevel: rec.ApplicationLevel, SystemLevel: rec.SystemLevel, Group: group,
		},
	}
}
