package trigger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/state"
)

// What error pages say of a function that could not be run, in AWS's words.
const (
	textExecution = "The Lambda function associated with the CloudFront distribution is invalid or doesn't have the required permissions."
	textLimit     = "The Lambda function associated with the CloudFront distribution was throttled."
)

// Invoker runs invocations. Package invoke's Dispatcher implements it.
type Invoker interface {
	Invoke(ctx context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error)
	Retire(functionARN, version string)
}

// Logs takes log events. Package logstore's Store implements it.
type Logs interface {
	Append(group, stream string, events []logstore.Event) error
}

// Options configures a Lambda. All but Packages and Logger are required.
type Options struct {
	Account string
	// Region is the one that the edge location is in: functions see it as theirs.
	Region string
	// Location is the name of the edge location, for the log.
	Location string
	Replicas *state.Collection[distribution.LambdaReplica]
	Invoker  Invoker
	Images   *image.Store
	// Packages is where code packages come from at a location of its own, whose
	// Images hold nothing but what Lambda makes. At the Lambda service's it is
	// nil: that has the images made before a record tells of them.
	Packages Packages
	Logs     Logs
	Logger   *slog.Logger
}

// Lambda runs Lambda@Edge functions where the viewer's request is, in
// environments of this process: no call leaves it. Close ends it.
type Lambda struct {
	opts     Options
	replicas *replicas
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

var _ Runner = (*Lambda)(nil)

// NewLambda begins to follow the records of replicas.
func NewLambda(opts Options) *Lambda {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Lambda{opts: opts, replicas: &replicas{
		records: opts.Replicas, region: opts.Region, account: opts.Account, images: opts.Images, packages: opts.Packages,
		retire: opts.Invoker.Retire, log: opts.Logger, ready: map[string]*replica{},
	}}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(func() { l.replicas.run(ctx) })
	return l
}

// Close ends what NewLambda began. Functions under way are the Invoker's.
func (l *Lambda) Close() {
	l.cancel()
	l.wg.Wait()
}

// Applied returns the revision of Options.Replicas up to which every function
// that is to run here can.
func (l *Lambda) Applied() uint64 { return l.replicas.applied.Load() }

// Run implements Runner.
func (l *Lambda) Run(ctx context.Context, d *distribution.Distribution, b *distribution.Behaviour, e distribution.EventType, x *Exchange) error {
	a, ok := b.Functions[e]
	if !ok {
		return nil
	}
	result, err := l.invoke(ctx, a.ARN, appendEvent(make([]byte, 0, 2048), d, e, x))
	if err == nil {
		err = x.applyResult(e, result)
	}
	if failed, ok := errors.AsType[*Error](err); ok && failed.Class == LambdaValidation {
		l.logInvalid(d, x, failed)
	}
	return err
}

// invoke runs a version and returns its result.
func (l *Lambda) invoke(ctx context.Context, arn string, event []byte) ([]byte, error) {
	r := l.replicas.get(arn)
	if r == nil {
		l.opts.Logger.Warn("an edge function is not at this location yet", "function", arn)
		return nil, &Error{LambdaExecution, textExecution, fmt.Errorf("%s is not ready at this location", arn)}
	}
	var w bytes.Buffer
	result, err := l.opts.Invoker.Invoke(ctx, &invoke.Request{
		Version: r.version, InvokedARN: r.arn, RequestID: uuid.NewString(), Payload: event,
	}, &w)
	switch {
	case err == nil && result.FunctionError == "":
		return w.Bytes(), nil
	case err == nil:
		return nil, &Error{LambdaExecution, textExecution, fmt.Errorf("%s failed: %s", arn, bytes.TrimSpace(w.Bytes()[:min(w.Len(), 1024)]))}
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if refused, ok := errors.AsType[*aws.Error](err); ok && refused.Code == "TooManyRequestsException" {
		return nil, &Error{LambdaLimit, textLimit, err}
	}
	l.opts.Logger.Warn("an edge function could not be run", "function", arn, "error", err)
	return nil, &Error{LambdaExecution, textExecution, err}
}

// logInvalid tells the owner of a distribution of a result that was refused,
// where CloudFront does ("Edge function logs").
func (l *Lambda) logInvalid(d *distribution.Distribution, x *Exchange, failed *Error) {
	now := time.Now().UTC()
	err := l.opts.Logs.Append("/aws/cloudfront/LambdaEdge/"+d.ID, now.Format("2006/01/02/")+l.opts.Location, []logstore.Event{{
		Time:    now,
		Message: fmt.Sprintf("%s\t%s\tERROR\tValidation error: %v", now.Format("2006-01-02T15:04:05.000Z"), x.RequestID, failed.Cause),
	}})
	if err != nil && !errors.Is(err, logstore.ErrQueueFull) {
		l.opts.Logger.Error("validation error of an edge function was not logged", "distribution", d.ID, "error", err)
	}
}
