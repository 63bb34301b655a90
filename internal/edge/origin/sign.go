package origin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
)

// unsigned says that a signature does not cover the body, as S3 allows.
const unsigned = "UNSIGNED-PAYLOAD"

var emptyHash = func() string {
	sum := sha256.Sum256(nil)
	return hex.EncodeToString(sum[:])
}()

// sign signs a request where the origin's access control or identity says so.
func (c *Client) sign(ctx context.Context, r *Request, request *http.Request) error {
	service := ""
	switch o := r.Origin; {
	case o.AccessControl != nil:
		if b := o.AccessControl.Behavior; b == "always" || b == "no-override" && request.Header.Get("Authorization") == "" {
			service = o.AccessControl.Service
		}
	case o.AccessIdentity != "":
		service = "s3"
	}
	if service == "" {
		return nil
	}
	if c.options.Sign == nil {
		return errors.New("requests to origins cannot be signed here")
	}
	// Request headers of the service's own would be a viewer's: only what
	// CloudFront signs may be there.
	request.Header.Del("Authorization")
	request.Header.Del("X-Amz-Security-Token")
	request.Header.Del("X-Amz-Date")
	return c.options.Sign.Sign(ctx, request, service, payloadHash(r, service))
}

// payloadHash returns what the signature says of the body. Lambda takes no
// unsigned ones: viewers send the hash ("Restrict access to an AWS Lambda function
// URL origin").
func payloadHash(r *Request, service string) string {
	if service == "s3" {
		if r.Body != nil {
			return unsigned
		}
		return emptyHash
	}
	if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" {
		return h
	}
	return emptyHash
}
