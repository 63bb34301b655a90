package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/credentials"
)

// User is the name of every user of the registry; the password is a token that
// ECR's GetAuthorizationToken gave out.
const User = "AWS"

// HandlerOptions configures Handler.
type HandlerOptions struct {
	// Authenticate says whose a token is; the errors are those of package
	// credentials.
	Authenticate func(token string) (aws.Identity, error)
	Logger       *slog.Logger
}

// Handler serves the OCI distribution protocol, version 1.1, below /v2/
// (https://github.com/opencontainers/distribution-spec). The names of hosts mean
// nothing to it.
func (r *Registry) Handler(o HandlerOptions) http.Handler {
	if o.Logger == nil {
		o.Logger = r.log
	}
	return &handler{r, o}
}

type handler struct {
	registry *Registry
	opts     HandlerOptions
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if !h.authenticate(w, r) {
		return
	}
	p, ok := parsePath(r.URL.Path)
	if !ok {
		writeError(w, http.StatusNotFound, "UNSUPPORTED", "There is nothing at this path.")
		return
	}
	if p.name != "" && !ValidName(p.name) {
		writeError(w, http.StatusBadRequest, "NAME_INVALID", "The repository name '"+p.name+"' is not valid.")
		return
	}
	if err := h.serve(w, r, p); err != nil {
		h.fail(w, r, err)
	}
}

// authenticate answers in ECR's words where the token is not a valid one.
func (h *handler) authenticate(w http.ResponseWriter, r *http.Request) bool {
	user, token, ok := r.BasicAuth()
	if !ok || user != User {
		h.challenge(w)
		return false
	}
	_, err := h.opts.Authenticate(token)
	switch {
	case errors.Is(err, credentials.ErrExpired):
		writeError(w, http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	case err != nil:
		h.challenge(w)
	}
	return err == nil
}

func (h *handler) challenge(w http.ResponseWriter) {
	o := h.registry.opts
	w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q,service=%q", "https://"+o.AccountID+".dkr.ecr."+o.Region+".amazonaws.com/", "ecr.amazonaws.com"))
	writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "Not Authorized")
}

// methods are what each endpoint answers to.
var methods = map[endpoint]map[string]func(*handler, http.ResponseWriter, *http.Request, place) error{
	endBase:      {"GET": (*handler).base},
	endCatalog:   {"GET": (*handler).catalog},
	endTags:      {"GET": (*handler).listTags},
	endReferrers: {"GET": (*handler).listReferrers},
	endManifest:  {"GET": (*handler).getManifest, "PUT": (*handler).putManifest, "DELETE": (*handler).deleteManifest},
	endBlob:      {"GET": (*handler).getBlob},
	endUploads:   {"POST": (*handler).startUpload},
	endUpload:    {"GET": (*handler).uploadStatus, "PATCH": (*handler).patchUpload, "PUT": (*handler).putUpload, "DELETE": (*handler).cancelUpload},
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, p place) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	serve := methods[p.kind][method]
	if serve == nil {
		message := "The operation is unsupported."
		if p.kind == endBlob && method == http.MethodDelete {
			message = "Layers cannot be deleted: those that no image refers to are removed after a time."
		}
		writeError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", message)
		return nil
	}
	if p.name != "" {
		if _, err := h.registry.Repository(p.name); err != nil {
			return err
		}
	}
	return serve(h, w, r, p)
}

func (h *handler) base(w http.ResponseWriter, r *http.Request, _ place) error {
	return writeJSON(w, "application/json", struct{}{})
}

// codes are the protocol's error codes and statuses.
var codes = map[Kind]struct {
	code   string
	status int
}{
	RepositoryNotFound:       {"NAME_UNKNOWN", http.StatusNotFound},
	ImageNotFound:            {"MANIFEST_UNKNOWN", http.StatusNotFound},
	ImageReferenced:          {"DENIED", http.StatusForbidden},
	TagImmutable:             {"TAG_INVALID", http.StatusBadRequest},
	InvalidTag:               {"TAG_INVALID", http.StatusBadRequest},
	InvalidManifest:          {"MANIFEST_INVALID", http.StatusBadRequest},
	InvalidDigest:            {"DIGEST_INVALID", http.StatusBadRequest},
	DigestMismatch:           {"DIGEST_INVALID", http.StatusBadRequest},
	LayerNotFound:            {"BLOB_UNKNOWN", http.StatusNotFound},
	LayersNotFound:           {"MANIFEST_BLOB_UNKNOWN", http.StatusBadRequest},
	ReferencedImagesNotFound: {"MANIFEST_BLOB_UNKNOWN", http.StatusBadRequest},
	UploadNotFound:           {"BLOB_UPLOAD_UNKNOWN", http.StatusNotFound},
	InvalidPart:              {"BLOB_UPLOAD_INVALID", http.StatusRequestedRangeNotSatisfiable},
	InvalidPage:              {"PAGINATION_NUMBER_INVALID", http.StatusBadRequest},
	TooLarge:                 {"SIZE_INVALID", http.StatusRequestEntityTooLarge},
	TooManyUploads:           {"TOOMANYREQUESTS", http.StatusTooManyRequests},
	BrokenUpload:             {"BLOB_UPLOAD_INVALID", http.StatusBadRequest},
}

// fail answers with an error; nothing has been written yet.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if e, ok := errors.AsType[*Error](err); ok {
		if c, ok := codes[e.Kind]; ok {
			writeError(w, c.status, c.code, e.Message)
			return
		}
	}
	// The gateway says in such an error that the client is to blame.
	if e, ok := errors.AsType[*aws.Error](err); ok && e.Status < 500 {
		writeError(w, e.Status, "BLOB_UPLOAD_INVALID", e.Message)
		return
	}
	if r.Context().Err() == nil {
		h.opts.Logger.Error("a request to the registry failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	writeError(w, http.StatusInternalServerError, "UNKNOWN", "The request failed for a reason inside of the registry.")
}

// writeError answers in the protocol's form; a client that has left is nobody's
// concern.
func writeError(w http.ResponseWriter, status int, code, message string) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]entry{"errors": {{code, message}}})
}

func writeJSON(w http.ResponseWriter, mediaType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	_, _ = w.Write(b) // fails only when the client has left
	return nil
}
