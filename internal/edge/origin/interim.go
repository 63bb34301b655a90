package origin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
)

// maxInterim is how many interim answers (1xx) an origin may send before the answer
// itself.
const maxInterim = 16

var (
	errContinues = errors.New("a second 100 Continue")
	errInterim   = errors.New("too many interim answers")
)

// interim bounds the interim answers of a request. None of them is passed on, 103 Early
// Hints neither: the developer guide knows of one alone, "100-Continue Responses", of
// which a second is an error of the origin.
func interim(ctx context.Context) context.Context {
	all, continues := 0, 0
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(status int, _ textproto.MIMEHeader) error {
		if all++; all > maxInterim {
			return &Error{Detail: InvalidResponse, Err: errInterim}
		}
		if status == http.StatusContinue {
			if continues++; continues > 1 {
				return &Error{Detail: InvalidResponse, Err: errContinues}
			}
		}
		return nil
	}})
}
