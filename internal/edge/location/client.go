package location

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/cluster"
)

// callTimeout bounds a call with a small body.
const callTimeout = 5 * time.Second

// call makes a call to a node and decodes what it answers into out.
func call(ctx context.Context, t http.RoundTripper, method, address, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := ask(ctx, t, method, address, path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(out); err != nil {
		return fmt.Errorf("%s answers what is not understood: %w", address, err)
	}
	return nil
}

// ask sends a request to a node, and returns what it answers unless it refuses. The
// caller closes the body.
func ask(ctx context.Context, t http.RoundTripper, method, address, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, &refusal{resp.StatusCode, fmt.Sprintf("%s answers %s: %s", address, resp.Status, messageOf(resp))}
	}
	return resp, nil
}

// Operator makes an operator's calls to the core.
type Operator struct {
	transport *http.Transport
	address   string
}

// NewOperator returns an Operator of the core that has this authority and listens
// for nodes at an address.
func NewOperator(a *cluster.Authority, address string) (*Operator, error) {
	n, err := a.Node(cluster.Identity{Role: cluster.Operator, Name: "root"})
	if err != nil {
		return nil, err
	}
	return &Operator{n.Transport(cluster.Core), address}, nil
}

// Close ends the operator's connections.
func (o *Operator) Close() { o.transport.CloseIdleConnections() }

// Token makes a token with which an edge location of this name can join.
func (o *Operator) Token(ctx context.Context, name string, ttl time.Duration) (string, error) {
	var a tokenAnswer
	err := call(ctx, o.transport, http.MethodPost, o.address, pathTokens, tokenRequest{name, ttl}, &a)
	return a.Token, err
}

// Locations returns what the core knows of the edge locations.
func (o *Operator) Locations(ctx context.Context) ([]Status, error) {
	var all []Status
	err := call(ctx, o.transport, http.MethodGet, o.address, pathLocations, nil, &all)
	return all, err
}

// Remove lets an edge location go.
func (o *Operator) Remove(ctx context.Context, name string) error {
	return call(ctx, o.transport, http.MethodDelete, o.address, pathLocations+"/"+name, nil, &struct{}{})
}
