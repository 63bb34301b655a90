// Package harness starts the built lapwing program as a user would, for tests
// and benchmarks that drive it from outside through unmodified AWS clients.
package harness

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"lapwing.dev/lapwing/cmd/lapwing/sdk"
)

// startTimeout is how long a server may take to start, and to stop, which is far
// more than it takes on a slow machine.
const startTimeout = 5 * time.Minute

// Server is one running lapwing.
type Server struct {
	Data string            // its data directory
	Env  map[string]string // what `lapwing env` prints
	PID  int

	binary string
	args   []string
	log    *os.File
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the process, once exited
}

// Root returns the repository's root directory.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(string(bytes.TrimSpace(out))), nil
}

// Start starts lapwing on the data directory and waits until it is ready. args
// are further flags of `lapwing up`. Its output goes to data+".log".
func Start(data string, args ...string) (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("sandboxes need root: run the tests as root")
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	s := &Server{Data: data, binary: filepath.Join(root, "bin", "lapwing"), args: args}
	if _, err := os.Stat(s.binary); err != nil {
		return nil, fmt.Errorf("%w: run make build first", err)
	}
	return s, s.Restart()
}

// Restart starts the program again after Stop or Kill.
func (s *Server) Restart() error {
	var err error
	s.log, err = os.OpenFile(s.Data+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	args := []string{"up", "--data", s.Data, "--listen", "127.0.0.1:0"}
	if snapshots := os.Getenv("LAPWING_TEST_SNAPSHOTS"); snapshots != "" {
		args = append(args, "--snapshots", snapshots) // the flags of the test win
	}
	args = append(args, s.args...)
	s.cmd = exec.Command(s.binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.PID = s.cmd.Process.Pid
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		s.err = s.cmd.Wait()
		s.log.Close()
		close(exited)
	}()
	for time.Since(began) < startTimeout {
		if s.ready(began) {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("lapwing ended: %v\n%s", s.err, s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.Join(errors.New("lapwing was not ready in time"), s.Kill())
}

// ready asks the server's health, at the address that this start has written.
func (s *Server) ready(began time.Time) bool {
	info, err := os.Stat(filepath.Join(s.Data, "endpoint.json"))
	if err != nil || info.ModTime().Before(began.Add(-time.Second)) {
		return false
	}
	out, err := s.Run("env", "--json")
	if err != nil || json.Unmarshal(out, &s.Env) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/_lapwing/health", nil)
	if err != nil {
		return false
	}
	c, err := s.HTTPClient()
	if err != nil {
		return false
	}
	defer c.CloseIdleConnections()
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// URL returns the endpoint.
func (s *Server) URL() string { return s.Env["AWS_ENDPOINT_URL"] }

// HTTPClient returns a client that trusts the server's certificate authority,
// where it has one.
func (s *Server) HTTPClient() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if file := s.Env["AWS_CA_BUNDLE"]; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", file)
		}
	}
	return &http.Client{Transport: t}, nil
}

// Account returns the account id.
func (s *Server) Account() string { return s.Env["LAPWING_ACCOUNT_ID"] }

// Config returns a configuration for SDK clients.
func (s *Server) Config() aws.Config {
	return aws.Config{
		Region:       s.Env["AWS_REGION"],
		BaseEndpoint: aws.String(s.URL()),
		Credentials:  credentials.NewStaticCredentialsProvider(s.Env["AWS_ACCESS_KEY_ID"], s.Env["AWS_SECRET_ACCESS_KEY"], ""),
		HTTPClient:   sdk.OwnBodies(awshttp.NewBuildableClient()),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

// Environ returns this process's environment with the server's variables.
func (s *Server) Environ() []string {
	env := os.Environ()
	for k, v := range s.Env {
		env = append(env, k+"="+v)
	}
	return append(env, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true")
}

// Run runs a subcommand of lapwing on the server's data directory and returns
// its standard output.
func (s *Server) Run(args ...string) ([]byte, error) {
	cmd := exec.Command(s.binary, append(args, "--data", s.Data)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("lapwing %v: %w\n%s", args, err, stderr.Bytes())
	}
	return out, nil
}

// Log returns the end of what the server printed.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.Data + ".log")
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8192):])
}

// Stop ends the server as a user would and waits for it.
func (s *Server) Stop() error {
	select {
	case <-s.exited:
		return s.err
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return s.err
	case <-time.After(startTimeout):
		return errors.Join(errors.New("lapwing did not stop in time"), s.Kill())
	}
}

// Kill ends the server by SIGKILL.
func (s *Server) Kill() error {
	err := s.cmd.Process.Kill()
	<-s.exited
	return err
}

// Zip makes a code package of files by name; a name ending in "*" gets the
// executable bit, without the star.
func Zip(files map[string]string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	w.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return flate.NewWriter(out, flate.BestSpeed) })
	for name, content := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(0o644)
		if n := len(name) - 1; name[n] == '*' {
			h.Name = name[:n]
			h.SetMode(0o755)
		}
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = f.Write([]byte(content))
		}
		if err != nil {
			panic(err) // memory only
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// AddRuntimes adds runtimes to a data directory before its server starts. What
// was fetched from a registry is kept below bin for the next run.
func AddRuntimes(data string, ids ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	binary, cache := filepath.Join(root, "bin", "lapwing"), filepath.Join(root, "bin", "tools", "lapwing")
	for _, dir := range []string{data, cache} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	add := exec.Command(binary, append([]string{"runtimes", "add", "--data", cache}, ids...)...)
	if out, err := add.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", add.Args, err, out)
	}
	if _, err := os.Stat(filepath.Join(cache, "runtimes", "added")); err != nil {
		return nil // all were installed on this host
	}
	if err := os.MkdirAll(filepath.Join(data, "runtimes"), 0o700); err != nil {
		return err
	}
	link := exec.Command("cp", "-al", filepath.Join(cache, "runtimes", "added"), filepath.Join(data, "runtimes", "added"))
	if link.Run() != nil { // another file system, perhaps
		link = exec.Command("cp", "-a", filepath.Join(cache, "runtimes", "added"), filepath.Join(data, "runtimes", "added"))
		if out, err := link.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", link.Args, err, out)
		}
	}
	return nil
}

// Interpreter returns the path on this host of a runtime's interpreter.
func (s *Server) Interpreter(id string) (string, error) {
	out, err := s.Run("runtimes", "--json")
	if err != nil {
		return "", err
	}
	var all []struct{ ID, Source, Path string }
	if err := json.Unmarshal(out, &all); err != nil {
		return "", err
	}
	for _, r := range all {
		if r.ID == id && r.Path != "" {
			return r.Path, nil
		}
	}
	return "", fmt.Errorf("no interpreter of %s in %s", id, out)
}

// WriteJSON writes what a benchmark has measured to a file.
func WriteJSON(path string, report any) error {
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
