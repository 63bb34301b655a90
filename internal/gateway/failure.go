package gateway

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/sigv4"
	"lapwing.dev/lapwing/internal/aws/wire"
)

// internalFailure is what the client sees of an error that is not AWS's.
func internalFailure(s *aws.Service) *aws.Error {
	if dialectOf(s) == sigv4.S3 {
		return &aws.Error{Code: "InternalError", Status: http.StatusInternalServerError, Message: "We encountered an internal error. Please try again."}
	}
	return &aws.Error{
		Code: "InternalFailure", Status: http.StatusInternalServerError,
		Message: "The request processing has failed because of an unknown error, exception or failure.",
	}
}

// maxForm is the largest request in a Query protocol, in bytes.
const maxForm = 1 << 20

func formTooLarge() *aws.Error {
	return &aws.Error{
		Code: "RequestEntityTooLarge", Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("Request must be smaller than %d bytes.", maxForm),
	}
}

// writeError answers with an error in the form of the service's protocol.
func (g *Gateway) writeError(w *response, r *http.Request, x *exchange, e *aws.Error) {
	if x.service != nil {
		wire.WriteError(w, r, x.service, x.call, e, x.id)
		return
	}
	// No service, so no protocol: the one that the client seems to speak.
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		writeXMLError(w, e, x.id)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Errortype", e.Code)
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": e.Code, "message": e.Message}) // fails only when the client has left
}

func writeXMLError(w *response, e *aws.Error, id string) {
	kind := "Sender"
	if e.Status >= 500 {
		kind = "Receiver"
	}
	type inner struct{ Type, Code, Message string }
	body := struct {
		XMLName   xml.Name `xml:"ErrorResponse"`
		Error     inner
		RequestID string `xml:"RequestId"`
	}{Error: inner{kind, e.Code, e.Message}, RequestID: id}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(e.Status)
	_ = xml.NewEncoder(w).Encode(body) // fails only when the client has left
}
