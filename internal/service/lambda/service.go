// Package lambda is the behaviour of the AWS Lambda API: the control plane of
// functions, versions, aliases, their policies, tags and concurrency, of layers
// and code signing configurations, and the front of invocations.
//
// What must last of functions is kept in three collections of package state: one
// record a function (which holds $LATEST), one a published version, one an alias.
// Each holds all that is configured for it alone, such as its policy, URL,
// destinations and provisioned concurrency, which go with it. A version or alias
// belongs to a function by the function's incarnation id, and
// a version counts only while its number is below the function's next version
// number. So each operation takes effect with one write, the function's or the
// alias's, and what an observer finds after a crash is whole; records that no
// function claims are swept at the next start.
//
// A layer has one record, which counts its versions, and one a version. What a
// function needs of a layer stands in the function's own record, so that a
// layer can be deleted at any time.
//
// Invocations never read the store: for each function there is an entry, an
// immutable read model with the prepared *function.Version behind every
// qualifier, replaced after each write. Code packages are kept as blobs and
// unpacked by package image. What Lambda does asynchronously (a function
// becomes Active, an update Successful, unused code is deleted) is done by one
// worker goroutine from the durable records, so a restart resumes it.
package lambda

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"

	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/trace"
)

// Invoker runs invocations. Package invoke's Dispatcher implements it.
type Invoker interface {
	// Invoke runs one invocation and writes the response, or the error
	// payload, to w. Refusals such as throttles are *aws.Error.
	Invoke(ctx context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error)
	// Retire ends the environments of a function, or of one version of it,
	// once they are idle.
	Retire(functionARN, version string)
	// Configure sets the concurrency of a function, which need not be new.
	Configure(functionARN string, l invoke.Limits)
	// Allocation tells what has become of a version's provisioned concurrency.
	Allocation(v *function.Version) invoke.AllocationStatus
}

// Objects gives access to code packages in S3.
type Objects interface {
	// OpenObject opens an object, or the given version of it. The caller
	// closes body. An *aws.Error carries S3's own code and message.
	OpenObject(ctx context.Context, bucket, key, versionID string) (body io.ReadCloser, size int64, version, etag string, err error)
}

// Events queues asynchronous invocations. Package events' Queue implements it.
type Events interface {
	// Accept returns when the event is durable.
	Accept(ctx context.Context, e *events.Event) error
}

// Options configures a Service. Store, Images, Invoker, Events and
// RuntimeVersion are required.
type Options struct {
	AccountID string
	// Region serves requests that name none.
	Region string

	Store   *state.Store
	Images  *image.Store
	Invoker Invoker
	Events  Events
	// Roles may be nil: then no role may run at edge locations.
	Roles Roles
	// Replicas are the versions that edge locations run; nil: none. The service
	// reads them only.
	Replicas *state.Collection[distribution.LambdaReplica]
	// Objects may be nil: then code from S3 is refused.
	Objects Objects
	// Containers may be nil: then container images are refused.
	Containers Containers
	// Snapshots may be nil: then SnapStart is refused.
	Snapshots Snapshots
	// RuntimeVersion returns the ARN, in a Region, of the runtime version that
	// serves a runtime id on this host, or an error that says what to install.
	RuntimeVersion func(region, id string) (arn string, err error)

	// Concurrency is the account's limit of concurrent executions in a
	// Region; 0 means 1,000, Lambda's default.
	Concurrency int
	// Architecture of this host, x86_64 or arm64; empty means what it is.
	Architecture string
	// URLKey signs the URLs of GetFunction's Code.Location. Empty means a
	// random one, so that URLs given out before a restart do not work after.
	URLKey []byte

	// RecursionStopped, unless nil, is told of every invocation that was refused
	// as a part of a recursive loop. Events of such are the queue's to tell of.
	RecursionStopped func(events.Target)

	// Sampler decides which invocations are traced; nil means a new one.
	Sampler *trace.Sampler

	Logger *slog.Logger
	Now    func() time.Time // nil means time.Now
	Rand   func() float64   // in [0,1), chooses among weighted versions; nil means math/rand
}

// defaultConcurrency and minUnreserved are Lambda's (Lambda quotas, Reserved
// concurrency).
const (
	defaultConcurrency = 1000
	minUnreserved      = 100
)

// Service implements the Lambda API. Close ends it.
type Service struct {
	opts Options
	log  *slog.Logger

	functions *state.Collection[functionRecord]
	versions  *state.Collection[versionRecord]
	aliases   *state.Collection[aliasRecord]

	layers        *state.Collection[layerRecord]
	layerVersions *state.Collection[layerVersionRecord]
	signing       *state.Collection[signingRecord]

	entries      entries
	locks        [64]sync.Mutex // serialise the writers of one function
	signingUse   sync.RWMutex   // held for reading while a function gets a code signing configuration, for writing while one changes; taken before locks
	reservations sync.Mutex     // serialises the writers of reserved and provisioned concurrency; taken before locks
	seed         maphash.Seed

	code code

	ctx          context.Context // ends when the service closes
	cancel       context.CancelFunc
	steps        *steps
	preparations *preparations
	wg           sync.WaitGroup
}

var _ api.API = (*Service)(nil)

// New opens the service: it loads every function, restores images that are
// missing, deletes what a crash left over and resumes life cycles.
func New(ctx context.Context, opts Options) (*Service, error) {
	if opts.Concurrency == 0 {
		opts.Concurrency = defaultConcurrency
	}
	if opts.Architecture == "" {
		opts.Architecture = HostArchitecture()
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Sampler == nil {
		opts.Sampler = new(trace.Sampler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = mathrand.Float64
	}
	if len(opts.URLKey) == 0 {
		opts.URLKey = make([]byte, 32)
		rand.Read(opts.URLKey)
	}
	s := &Service{
		opts: opts, log: opts.Logger, seed: maphash.MakeSeed(),
		entries: entries{all: map[functionKey]*entry{}, urls: map[string]*function.URL{}},
		steps:   newSteps(), preparations: newPreparations(runtime.NumCPU()),
	}
	var err error
	if s.functions, err = state.Collect[functionRecord](ctx, opts.Store, "lambda-functions"); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	if s.versions, err = state.Collect[versionRecord](ctx, opts.Store, "lambda-versions"); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	if s.aliases, err = state.Collect[aliasRecord](ctx, opts.Store, "lambda-aliases"); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	if s.layers, err = state.Collect[layerRecord](ctx, opts.Store, "lambda-layers"); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	if s.layerVersions, err = state.Collect[layerVersionRecord](ctx, opts.Store, "lambda-layer-versions"); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	if s.signing, err = state.Collect[signingRecord](ctx, opts.Store, "lambda-code-signing-configs"); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	blobs, err := opts.Store.BlobSet("lambda-code")
	if err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	s.code.init(s, blobs)
	if err := errors.Join(s.code.recover(ctx), s.sweepOrphans(ctx), s.restoreImages(ctx)); err != nil {
		return nil, fmt.Errorf("lambda: %w", err)
	}
	for item := range s.functions.Scan("", "") {
		key, err := parseKey(item.Key)
		if err != nil {
			return nil, fmt.Errorf("lambda: %w", err)
		}
		s.reload(key)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.runLifecycle)
	s.wg.Go(s.code.collect)
	s.wg.Go(s.remakeImages)
	return s, nil
}

// Close stops the service's own work and waits for it. Life cycles that are
// under way resume when the service is opened again.
func (s *Service) Close() {
	s.cancel()
	s.wg.Wait()
}

// lock takes the lock of a function's writers.
func (s *Service) lock(key functionKey) (unlock func()) {
	mu := &s.locks[maphash.Comparable(s.seed, key)%uint64(len(s.locks))]
	mu.Lock()
	return mu.Unlock
}

// writeContext is for writes to the store, which must not stop half-way
// because a client went away.
func writeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

func newID() string { return uuid.NewString() }

// HostArchitecture is this host's architecture, as Lambda calls it.
func HostArchitecture() string {
	if runtime.GOARCH == "arm64" {
		return "arm64"
	}
	return "x86_64"
}
