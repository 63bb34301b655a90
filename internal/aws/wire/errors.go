package wire

import (
	"maps"
	"net/http"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"lapwing.dev/lapwing/internal/aws"
)

// WriteError writes an error in the form of the request's protocol. call may be
// nil where the operation is not known yet, and svc where not even the service
// is: then the error is JSON.
func WriteError(w http.ResponseWriter, r *http.Request, svc *aws.Service, call *Call, e *aws.Error, requestID string) {
	h := w.Header()
	maps.Copy(h, e.Header)
	protocol := aws.RESTJSON
	switch {
	case call != nil:
		protocol = call.Protocol
	case svc != nil:
		protocol = protocolOf(svc, r)
	}
	switch protocol {
	case aws.RESTXML:
		if svc.BareErrors {
			writeBareError(w, r, e, requestID)
			return
		}
		writeErrorResponse(w, svc, e, requestID)
	case aws.Query:
		writeErrorResponse(w, svc, e, requestID)
	case aws.EC2Query:
		var x xmlWriter
		x.declare()
		x.open("Response", "", "")
		x.open("Errors", "", "")
		x.open("Error", "", "")
		x.text("Code", e.Code)
		x.text("Message", e.Message)
		x.close("Error")
		x.close("Errors")
		x.text("RequestID", requestID)
		x.close("Response")
		write(w, e.Status, "text/xml", x.buf)
	case aws.CBOR:
		queryCompatible(h, svc, e)
		tree := map[string]any{"__type": shapeName(e), "message": e.Message}
		for k, v := range e.Extra {
			tree[k] = v
		}
		b, err := cbor.Marshal(tree)
		if err != nil {
			panic(err) // strings only
		}
		h.Set("Smithy-Protocol", "rpc-v2-cbor")
		write(w, e.Status, "application/cbor", b)
	case aws.JSON:
		queryCompatible(h, svc, e)
		h.Set("X-Amzn-Errortype", shapeName(e))
		write(w, e.Status, "application/x-amz-json-"+svc.JSONVersion, errorJSON(e, shapeName(e)))
	default:
		h.Set("X-Amzn-Errortype", shapeName(e))
		write(w, e.Status, "application/json", errorJSON(e, ""))
	}
}

// shapeName is the error's name where it is not told by its code.
func shapeName(e *aws.Error) string { return orElse(e.Shape, e.Code) }

// fault tells whose fault an error is.
func fault(e *aws.Error) string {
	if e.Status >= 500 {
		return "Receiver"
	}
	return "Sender"
}

// queryCompatible tells the error code of the service's former protocol.
func queryCompatible(h http.Header, svc *aws.Service, e *aws.Error) {
	if svc != nil && svc.QueryCompatible {
		h.Set("X-Amzn-Query-Error", e.Code+";"+fault(e))
	}
}

func errorJSON(e *aws.Error, typeName string) []byte {
	b := []byte{'{'}
	add := func(key, value string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendString(b, key)
		b = append(b, ':')
		b = appendString(b, value)
	}
	if typeName != "" {
		add("__type", typeName)
	}
	key := e.MessageKey
	if key == "" {
		key = "message"
	}
	for _, k := range slices.Sorted(maps.Keys(e.Extra)) {
		add(k, e.Extra[k])
	}
	add(key, e.Message)
	return append(b, '}')
}

func (x *xmlWriter) extra(e *aws.Error) {
	for _, k := range slices.Sorted(maps.Keys(e.Extra)) {
		x.text(k, e.Extra[k])
	}
}

// writeErrorResponse writes the form that Query and REST-XML share.
func writeErrorResponse(w http.ResponseWriter, svc *aws.Service, e *aws.Error, requestID string) {
	var x xmlWriter
	x.open("ErrorResponse", svc.XMLNamespace, "")
	x.open("Error", "", "")
	x.text("Type", fault(e))
	x.text("Code", e.Code)
	x.text("Message", e.Message)
	x.extra(e)
	x.close("Error")
	x.text("RequestId", requestID)
	x.close("ErrorResponse")
	write(w, e.Status, "text/xml", x.buf)
}

// writeBareError writes S3's form.
func writeBareError(w http.ResponseWriter, r *http.Request, e *aws.Error, requestID string) {
	if r.Method == http.MethodHead || e.Status == http.StatusNotModified {
		w.WriteHeader(e.Status) // no body: clients go by the status
		return
	}
	var x xmlWriter
	x.declare()
	x.open("Error", "", "")
	x.text("Code", e.Code)
	x.text("Message", e.Message)
	x.extra(e)
	if _, ok := e.Extra["Resource"]; !ok {
		x.text("Resource", r.URL.Path)
	}
	x.text("RequestId", requestID)
	x.text("HostId", w.Header().Get("X-Amz-Id-2"))
	x.close("Error")
	write(w, e.Status, "application/xml", x.buf)
}
