package sdk

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
)

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

// closable fails reads after Close, as the SDK's bodies do.
type closable struct {
	*bytes.Reader
	closed bool
}

func (c *closable) Close() error { c.closed = true; return nil }

func (c *closable) Read(p []byte) (int, error) {
	if c.closed {
		return 0, io.ErrClosedPipe
	}
	return c.Reader.Read(p)
}

func TestABodyCanBeReadAfterItsOwnerHasClosedIt(t *testing.T) {
	body := &closable{Reader: bytes.NewReader([]byte("payload"))}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body, r.ContentLength = body, 7
	_, err = OwnBodies(clientFunc(func(own *http.Request) (*http.Response, error) {
		body.Close()
		if b, err := io.ReadAll(own.Body); err != nil || string(b) != "payload" || own.ContentLength != 7 {
			t.Errorf("body %q of %d bytes, %v", b, own.ContentLength, err)
		}
		return nil, nil
	})).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Body != body {
		t.Error("the caller's request was changed")
	}
}

func TestABodyThatCannotBeReadIsAnError(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = &closable{closed: true}
	_, err = OwnBodies(clientFunc(func(*http.Request) (*http.Response, error) {
		t.Error("the request was sent")
		return nil, nil
	})).Do(r)
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

func TestRequestsWithoutABodyPassAsTheyAre(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body = body
		if _, err := OwnBodies(clientFunc(func(got *http.Request) (*http.Response, error) {
			if got != r {
				t.Error("the request was copied")
			}
			return nil, nil
		})).Do(r); err != nil {
			t.Fatal(err)
		}
	}
}
