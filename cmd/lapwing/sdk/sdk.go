// Package sdk makes the AWS SDK for Go dependable for clients that must not
// repeat their calls: invoking a function twice is not what a user asked for.
package sdk

import (
	"bytes"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// OwnBodies returns a client that gives next a copy of each request's body, in
// memory.
//
// The SDK closes a request's body as soon as it has the head of the response.
// The HTTP transport may still be probing that body for its end; it takes the
// error for a broken request and closes the connection, and reading the response
// fails with "use of closed network connection". The SDK counts on its retries
// for that (https://github.com/aws/aws-sdk-go-v2/issues/2737).
func OwnBodies(next aws.HTTPClient) aws.HTTPClient { return ownBodies{next} }

type ownBodies struct{ next aws.HTTPClient }

// Do implements aws.HTTPClient.
func (c ownBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return c.next.Do(r)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	own := r.WithContext(r.Context())
	own.Body = io.NopCloser(bytes.NewReader(b))
	return c.next.Do(own)
}
