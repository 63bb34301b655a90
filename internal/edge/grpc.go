package edge

import (
	"net/http"
	"strings"
)

// isGRPC tells whether a request is a call of gRPC: a POST over HTTP/2 ("Using gRPC
// with CloudFront distributions").
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// passGRPC has the origin asked over HTTP/2, with what its protocol needs of the
// viewer's header, whatever the policies choose.
func (j *job) passGRPC(h http.Header) {
	j.grpc = true
	j.header["Te"] = []string{"trailers"}
	for name, v := range h {
		if strings.HasPrefix(name, "Grpc-") {
			j.header[name] = v
		}
	}
}
