package trigger

import (
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Exchange is one request of a viewer on its way through an edge location, as
// functions see it and may change it. Its user makes one for each event that has
// a function, and takes over what the function made of it.
type Exchange struct {
	// RequestID is the X-Amz-Cf-Id of the viewer's request.
	RequestID string
	// Secure tells that the viewer came by TLS: what an origin of protocol
	// match-viewer is asked by.
	Secure bool

	Request Request
	// Response is what the origin, or the cache, answered: set before response
	// events. A request event's function that answers by itself sets it.
	Response *Response
}

// Request is a request as functions see it.
type Request struct {
	ClientIP string
	Method   string
	// URI is the path as the viewer encoded it, beginning with a slash.
	URI string
	// Query is the query string without the question mark.
	Query  string
	Header Header
	// Body is given where the function's association includes it, else nil.
	Body *Body
	// Origin is the one that is about to be asked, or was: set for origin events
	// only. A function that chooses another one replaces the pointer; what it
	// points to is never changed.
	Origin *distribution.Origin
	// Route is where a CloudFront Function sends the request; nil: where the
	// behaviour says.
	Route *Route
}

// Body is a request's body as functions see it.
type Body struct {
	// Data is the body, or its first BodyLimit bytes.
	Data []byte
	// Truncated tells that the body is longer than Data.
	Truncated bool
	// Replaced tells, after a function, that Data is now all of the body.
	Replaced bool
}

// Response is a response as functions see it.
type Response struct {
	Status      int
	Description string // the reason phrase
	Header      Header
	// Body is what a function made the body of, where Replaced: response events
	// do not show the body that is there.
	Body     []byte
	Replaced bool
}

// Header is the fields of a request or response, in order, each value a field of
// its own. Names keep the spelling of the wire.
type Header []Field

// Field is one line of a header.
type Field struct{ Name, Value string }

// Get returns the first value of a field, or nothing.
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Sizes of bodies and generated responses (CloudFront developer guide,
// "Restrictions on Lambda@Edge"), in bytes.
const (
	viewerLimit = 40 << 10
	originLimit = 1 << 20
)

// BodyLimit returns how many bytes of a request's body an event shows.
func BodyLimit(e distribution.EventType) int {
	switch e {
	case distribution.ViewerRequest, distribution.ViewerResponse:
		return viewerLimit
	}
	return originLimit
}
