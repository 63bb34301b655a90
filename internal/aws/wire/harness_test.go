package wire_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/wire"
)

const requestID = "11112222-3333-4444-5555-666677778888"

// moment is a time that every timestamp format can say.
var moment = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// serve serves a service without a gateway, and returns its address and the
// errors that Serve returned once the response had begun.
func serve(t testing.TB, svc *aws.Service) (address string, late <-chan error) {
	failures := make(chan error, 8)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := &begunWriter{ResponseWriter: w}
		err := handle(begun, r, svc)
		if err != nil && begun.begun {
			failures <- err
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, failures
}

func handle(w *begunWriter, r *http.Request, svc *aws.Service) error {
	ctx := aws.WithRequest(r.Context(), &aws.Request{ID: requestID})
	call, err := wire.Find(svc, r)
	if err == nil {
		err = call.Serve(ctx, w, r)
	}
	if err == nil || w.begun {
		return err
	}
	e, ok := errors.AsType[*aws.Error](err)
	if !ok {
		e = &aws.Error{Code: "InternalFailure", Status: 500, Message: err.Error()}
	}
	wire.WriteError(w, r, svc, call, e, requestID)
	return nil
}

type begunWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *begunWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *begunWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// config is an SDK client's configuration for a server at an address.
func config(address string) sdk.Config {
	return sdk.Config{
		Region: "us-east-1", BaseEndpoint: &address, RetryMaxAttempts: 1,
		Credentials: sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
			return sdk.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
	}
}

// equal compares what came through the wire with what went in.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, describe(got), describe(want))
	}
}

// apiError returns the error that the SDK made of a response.
func apiError(t *testing.T, err error) smithy.APIError {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Fatalf("got %v, want an API error", err)
	}
	return e
}

// send sends a request that no SDK would, and returns status and body.
func send(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// contains fails where a text lacks one of the parts.
func contains(t *testing.T, s string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			t.Errorf("%q is missing in:\n%s", p, s)
		}
	}
}
