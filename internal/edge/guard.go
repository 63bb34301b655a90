package edge

import (
	"errors"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/signed"
)

// checkSignature lets a request pass whose signed URL or cookies allow it. What
// signs it is neither cached by nor forwarded.
func (x *exchange) checkSignature(keys signed.Keys) *failure {
	scheme := "http://"
	if x.secure {
		scheme = "https://"
	}
	site := scheme + x.r.Host
	err := keys.Verify(&signed.Request{
		URL: site + x.request.Path, Normal: site + policy.Normalise(x.request.Path), Query: x.request.Query, Header: x.r.Header, Client: x.client.Addr(),
	}, time.Now())
	if e, ok := errors.AsType[*signed.Error](err); ok {
		f := refused(http.StatusForbidden, "Error", e.Message)
		f.xml, f.custom = e.Code, true
		return f
	}
	x.request.Query = signed.Strip(x.request.Query)
	return nil
}
