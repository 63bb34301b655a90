package lambda

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/state"
)

// CodePath is where CodeHandler must be mounted.
const CodePath = "/_lapwing/code/"

// codeURLTTL is how long the URL of a code package works (Lambda API reference,
// FunctionCodeLocation).
const codeURLTTL = 10 * time.Minute

// codeURL makes the URL by which a package can be downloaded without further
// credentials until it expires.
func (s *Service) codeURL(base, digest string) string {
	expires := strconv.FormatInt(s.opts.Now().Add(codeURLTTL).Unix(), 10)
	query := url.Values{"Expires": {expires}, "Signature": {s.signURL(digest, expires)}}
	return strings.TrimSuffix(base, "/") + CodePath + digest + "?" + query.Encode()
}

func (s *Service) signURL(digest, expires string) string {
	mac := hmac.New(sha256.New, s.opts.URLKey)
	fmt.Fprintf(mac, "lambda-code\n%s\n%s", digest, expires)
	return hex.EncodeToString(mac.Sum(nil))
}

// CodeHandler serves the URLs of GetFunction's Code.Location, to be mounted at
// CodePath. It needs no authentication: the URL is the permission.
func (s *Service) CodeHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		digest := strings.TrimPrefix(r.URL.Path, CodePath)
		query := r.URL.Query()
		expires, err := strconv.ParseInt(query.Get("Expires"), 10, 64)
		valid := hmac.Equal([]byte(query.Get("Signature")), []byte(s.signURL(digest, query.Get("Expires"))))
		switch {
		case err != nil || !valid:
			http.Error(w, "The request signature does not match.", http.StatusForbidden)
			return
		case s.opts.Now().Unix() >= expires:
			http.Error(w, "Request has expired.", http.StatusForbidden)
			return
		}
		f, err := s.code.blobs.Open(state.Digest(digest))
		if err != nil {
			if !errors.Is(err, state.ErrNotFound) {
				s.log.Error("cannot open code package", "digest", digest, "err", err)
				http.Error(w, "Internal Server Error", http.StatusInternalServerError)
				return
			}
			http.Error(w, "The code package does not exist any more.", http.StatusNotFound)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("ETag", `"`+digest+`"`)
		http.ServeContent(w, r, "", time.Time{}, f)
	})
}
