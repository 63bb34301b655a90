package registry

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

func (h *handler) getBlob(w http.ResponseWriter, r *http.Request, p place) error {
	d := digest.Digest(p.ref)
	f, err := h.registry.OpenLayer(p.name, d)
	if err != nil {
		return err
	}
	defer f.Close()
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Docker-Content-Digest", p.ref)
	header.Set("ETag", `"`+p.ref+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// startUpload serves the POST that begins an upload, is all of one, or spares
// one by mounting the layer of another repository.
func (h *handler) startUpload(w http.ResponseWriter, r *http.Request, p place) error {
	q := r.URL.Query()
	if mount := q.Get("mount"); mount != "" && q.Get("from") != "" {
		// Where it cannot be mounted it is uploaded.
		if err := h.registry.Mount(r.Context(), p.name, q.Get("from"), digest.Digest(mount)); err == nil {
			created(w, p.name, mount)
			return nil
		} else if _, refused := asError(err); !refused {
			return err
		}
	}
	id, err := h.registry.StartUpload(p.name)
	if err != nil {
		return err
	}
	p.ref = id
	if q.Get("digest") != "" {
		if err := h.finish(w, r, p, -1); err != nil {
			return h.drop(r, p, err)
		}
		return nil
	}
	accepted(w, p, 0)
	return nil
}

// drop drops an upload of which the client does not know.
func (h *handler) drop(r *http.Request, p place, cause error) error {
	err := h.registry.CancelUpload(r.Context(), p.name, p.ref)
	if e, ok := asError(err); ok && e.Kind == UploadNotFound {
		err = nil
	}
	if err != nil {
		h.opts.Logger.Warn("a failed upload to the registry stays until it expires", "upload", p.ref, "error", err)
	}
	return cause
}

func (h *handler) uploadStatus(w http.ResponseWriter, r *http.Request, p place) error {
	size, err := h.registry.UploadSize(r.Context(), p.name, p.ref)
	if err != nil {
		return err
	}
	progress(w, p, size)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) patchUpload(w http.ResponseWriter, r *http.Request, p place) error {
	at, err := chunkStart(r)
	if err != nil {
		return err
	}
	size, err := h.registry.Append(r.Context(), p.name, p.ref, at, r.Body)
	if err != nil {
		return outOfOrder(w, p, err)
	}
	accepted(w, p, size)
	return nil
}

func (h *handler) putUpload(w http.ResponseWriter, r *http.Request, p place) error {
	at, err := chunkStart(r)
	if err != nil {
		return err
	}
	return h.finish(w, r, p, at)
}

// finish takes the last bytes of an upload, if any, and makes it a layer.
func (h *handler) finish(w http.ResponseWriter, r *http.Request, p place, at int64) error {
	want := digest.Digest(r.URL.Query().Get("digest"))
	if !validDigest(want) {
		return fail(InvalidDigest, "'%s' is no SHA-256 digest", want)
	}
	if _, err := h.registry.Append(r.Context(), p.name, p.ref, at, r.Body); err != nil {
		return outOfOrder(w, p, err)
	}
	if _, err := h.registry.FinishUpload(r.Context(), p.name, p.ref, want); err != nil {
		return err
	}
	created(w, p.name, string(want))
	return nil
}

func (h *handler) cancelUpload(w http.ResponseWriter, r *http.Request, p place) error {
	if err := h.registry.CancelUpload(r.Context(), p.name, p.ref); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

var contentRange = regexp.MustCompile(`^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:/(?:\d+|\*))?$`)

// chunkStart reads where a chunk begins, -1 where the client leaves it open.
func chunkStart(r *http.Request) (int64, error) {
	s := r.Header.Get("Content-Range")
	if s == "" {
		return -1, nil
	}
	m := contentRange.FindStringSubmatch(s)
	if m == nil {
		return 0, fail(BrokenUpload, "The Content-Range '%s' is not valid.", s)
	}
	first, _ := strconv.ParseInt(m[1], 10, 64) // fifteen digits
	last, _ := strconv.ParseInt(m[2], 10, 64)
	if r.ContentLength >= 0 && last-first+1 != r.ContentLength {
		return 0, fail(BrokenUpload, "The Content-Range '%s' does not fit to the Content-Length %d.", s, r.ContentLength)
	}
	return first, nil
}

// outOfOrder tells the client how much is there, where a chunk did not fit.
func outOfOrder(w http.ResponseWriter, p place, err error) error {
	if e, ok := asError(err); ok && e.Kind == InvalidPart {
		progress(w, p, e.Size)
	}
	return err
}

// progress tells where an upload goes on and how much of it is there.
func progress(w http.ResponseWriter, p place, size int64) {
	header := w.Header()
	header.Set("Location", "/v2/"+p.name+"/blobs/uploads/"+p.ref)
	header.Set("Docker-Upload-Uuid", p.ref)
	header.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
}

func accepted(w http.ResponseWriter, p place, size int64) {
	progress(w, p, size)
	w.WriteHeader(http.StatusAccepted)
}

func created(w http.ResponseWriter, name, d string) {
	header := w.Header()
	header.Set("Location", "/v2/"+name+"/blobs/"+d)
	header.Set("Docker-Content-Digest", d)
	w.WriteHeader(http.StatusCreated)
}
