// Package servicetest is what tests of services have in common: the records and
// credentials of a new installation, and a gateway through which the AWS SDK calls
// a service as its clients do.
package servicetest

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/state"
)

// Installation is an installation's data until its test ends.
type Installation struct {
	Dir         string
	Store       *state.Store
	Credentials *credentials.Store
	t           *testing.T
}

// New returns a new installation.
func New(t *testing.T) *Installation {
	t.Helper()
	i := &Installation{Dir: t.TempDir(), t: t}
	var err error
	if i.Store, err = state.Open(t.Context(), state.Options{Dir: i.Dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	if i.Credentials, err = credentials.Open(filepath.Join(i.Dir, "credentials")); err != nil {
		t.Fatal(err)
	}
	return i
}

// Serve serves o.Services to the installation's account in o.Region until the test
// ends. It returns the SDK's configuration for the root user, which does not retry.
func (i *Installation) Serve(o gateway.Options) sdkaws.Config {
	i.t.Helper()
	o.Credentials, o.AccountID, o.Logger = i.Credentials, i.Credentials.AccountID(), slog.New(slog.DiscardHandler)
	server := httptest.NewServer(gateway.New(o))
	i.t.Cleanup(server.Close)
	root := i.Credentials.Root()
	return sdkaws.Config{
		Region: o.Region, BaseEndpoint: &server.URL, Retryer: func() sdkaws.Retryer { return sdkaws.NopRetryer{} },
		Credentials: sdkcredentials.NewStaticCredentialsProvider(root.AccessKeyID, root.SecretAccessKey, ""),
	}
}

// Must returns a function that passes on what a call returns and ends the test where
// that is an error.
func Must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// WantCode checks that an error of the SDK has a code; "" stands for no error.
func WantCode(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err == nil {
		return
	}
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}
