package location

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"lapwing.dev/lapwing/internal/state"
)

// maxPackage bounds a code package, in bytes: Lambda's quota for one unpacked.
const maxPackage = 250 << 20

// OpenPackage opens a code package of a function that locations run, and fetches
// it from the core first where it is not here. It is durable here, and has been
// verified, when OpenPackage returns.
func (n *Node) OpenPackage(ctx context.Context, digest string) (*os.File, int64, error) {
	d, err := state.ParseDigest(digest)
	if err != nil {
		return nil, 0, err
	}
	f, err := n.packages.Open(d)
	if errors.Is(err, state.ErrNotFound) {
		if err := n.fetch(ctx, d); err != nil {
			return nil, 0, fmt.Errorf("code package %s: %w", d, err)
		}
		f, err = n.packages.Open(d)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (n *Node) fetch(ctx context.Context, d state.Digest) error {
	select {
	case n.fetching <- struct{}{}:
		defer func() { <-n.fetching }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	n.mu.Lock()
	t, core := n.transport, n.membership.Facts.Core
	n.mu.Unlock()
	resp, err := ask(ctx, t, http.MethodGet, core, pathPackage+string(d), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	staged, err := n.packages.Stage(ctx, io.LimitReader(resp.Body, maxPackage+1))
	if err != nil {
		return err
	}
	if staged.Digest != d || staged.Size > maxPackage {
		return errors.Join(fmt.Errorf("the core sent %d bytes with the digest %s", staged.Size, staged.Digest), staged.Discard())
	}
	return staged.Commit()
}

// collectPackages removes packages of functions that locations do not run any
// more, until ctx ends.
func (n *Node) collectPackages(ctx context.Context) {
	for change := range n.records.Replicas.Watch(ctx) {
		if !change.Deleted {
			continue
		}
		needed := map[state.Digest]bool{}
		for item := range n.records.Replicas.Scan("", "") {
			needed[state.Digest(item.Value.Code)] = true
		}
		for d, err := range n.packages.All() {
			if err == nil && !needed[d] {
				err = n.packages.Delete(d)
			}
			if err != nil {
				n.log.Warn("a code package that nobody needs stays", "digest", d, "error", err)
			}
		}
	}
}
