package distribution

import (
	"context"
	"fmt"

	"lapwing.dev/lapwing/internal/state"
)

// Records are the collections that edge locations serve from. Keys are the ids of
// distributions and invalidations, those that package keyvalue gives, and the ARNs
// of the rest.
type Records struct {
	Distributions *state.Collection[Distribution]
	Certificates  *state.Collection[CertificateRecord]
	Functions     *state.Collection[Function]
	Replicas      *state.Collection[LambdaReplica]
	Invalidations *state.Collection[Invalidation]
	RealtimeLogs  *state.Collection[RealtimeLog]
	KeyValues     *state.Collection[KeyValues]
	Challenges    *state.Collection[Challenge]
}

// Open opens the collections of a store, once.
func Open(ctx context.Context, s *state.Store) (*Records, error) {
	var r Records
	for _, err := range []error{
		collect(ctx, s, "edge-distributions", &r.Distributions),
		collect(ctx, s, "edge-certificates", &r.Certificates),
		collect(ctx, s, "edge-functions", &r.Functions),
		collect(ctx, s, "edge-replicas", &r.Replicas),
		collect(ctx, s, "edge-invalidations", &r.Invalidations),
		collect(ctx, s, "edge-realtime-logs", &r.RealtimeLogs),
		collect(ctx, s, "edge-key-values", &r.KeyValues),
		collect(ctx, s, "edge-challenges", &r.Challenges),
	} {
		if err != nil {
			return nil, err
		}
	}
	return &r, nil
}

func collect[T any](ctx context.Context, s *state.Store, name string, c **state.Collection[T]) (err error) {
	if *c, err = state.Collect[T](ctx, s, name); err != nil {
		return fmt.Errorf("open the records of edge locations: %w", err)
	}
	return nil
}

// Revisions are how far a reader of Records is, a revision a collection: it has
// applied every change up to and including that one. A collection that was never
// written is at 0.
type Revisions struct {
	Distributions, Certificates, Functions, Replicas, Invalidations, RealtimeLogs, KeyValues, Challenges uint64
}
