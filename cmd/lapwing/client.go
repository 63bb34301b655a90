package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"

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
		return endpoint{}, fmt.Errorf("there is no Lapwing in %s: start one with `lapwing up --data %s`, or name its directory with --data", data, data)
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
		HTTPClient:   hc,
		// A throttle or a refusal is for the user to see, not to wait out.
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}, nil
}

// explain adds what to do to errors that a user of the command line meets.
func explain(ctx context.Context, err error, data string) error {
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	var op interface{ Timeout() bool }
	if errors.As(err, &op) {
		return fmt.Errorf("%w\nIs it running? Start it with `lapwing up --data %s`", err, data)
	}
	return err
}
