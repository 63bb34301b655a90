package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/cmd/lapwing/sdk"
	"lapwing.dev/lapwing/internal/credentials"
)

// endpointFile is where `lapwing up` leaves word of where it can be reached.
const endpointFile = "endpoint.json"

// endpoint is the content of endpointFile.
type endpoint struct {
	Version int    `json:"version"` // of this format
	URL     string `json:"url"`
	Region  string `json:"region"`
	// CAFile is the certificate authority to trust, where TLS is on.
	CAFile string `json:"caFile,omitempty"`
	// Nodes is the HOST:PORT where edge locations join, if they can.
	Nodes string `json:"nodes,omitempty"`
}

func (e endpoint) write(data string) error {
	e.Version = 1
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(data, endpointFile)
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func readEndpoint(data string) (endpoint, error) {
	b, err := os.ReadFile(filepath.Join(data, endpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return endpoint{}, fmt.Errorf("no Lapwing is running in %s: start it with `lapwing up --data %s`, or name another directory with --data", data, data)
	}
	if err != nil {
		return endpoint{}, err
	}
	var e endpoint
	if err := json.Unmarshal(b, &e); err != nil {
		return endpoint{}, fmt.Errorf("%s: %w", filepath.Join(data, endpointFile), err)
	}
	return e, nil
}

// running tells whether something listens at the endpoint: after a kill -9, the
// file is still there.
func (e endpoint) running() error {
	u, err := url.Parse(e.URL)
	if err != nil {
		return fmt.Errorf("%s: %w", endpointFile, err)
	}
	c, err := net.DialTimeout("tcp", u.Host, 5*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// client returns the configuration of an AWS client that talks to the Lapwing of
// the data directory as its root user.
func client(data string) (aws.Config, error) {
	ep, err := readEndpoint(data)
	if err != nil {
		return aws.Config{}, err
	}
	root, err := credentials.Read(filepath.Join(data, credentialsDir))
	if err != nil {
		return aws.Config{}, err
	}
	hc := awshttp.NewBuildableClient()
	if ep.CAFile != "" {
		pool, err := readCA(ep.CAFile)
		if err != nil {
			return aws.Config{}, err
		}
		hc = hc.WithTransportOptions(func(t *http.Transport) { t.TLSClientConfig.RootCAs = pool })
	}
	return aws.Config{
		Region:       ep.Region,
		BaseEndpoint: aws.String(ep.URL),
		Credentials:  sdkcredentials.NewStaticCredentialsProvider(root.AccessKeyID, root.SecretAccessKey, ""),
		HTTPClient:   sdk.OwnBodies(hc),
		// A throttle or a refusal is for the user to see, not to wait out.
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}, nil
}

// explain says what to do about the error of a call, for a user of the command
// line. hint is what to say where something isn't there.
func explain(err error, data, hint string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	where := "its endpoint"
	if ep, err := readEndpoint(data); err == nil {
		where = ep.URL
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no Lapwing is running: nothing listens at %s. Start it with `lapwing up --data %s`", where, data)
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	answer := fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	switch api.ErrorCode() {
	case "ResourceNotFoundException":
		return fmt.Errorf("%w\n%s", answer, hint)
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "UnknownError":
		// None of these is an answer to the root user of the directory.
		return fmt.Errorf("%w\nWhat answers at %s is not the Lapwing of %s. Is that one running?", answer, where, data)
	}
	return answer
}
