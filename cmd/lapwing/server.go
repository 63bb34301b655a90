package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	lambdaapi "lapwing.dev/lapwing/internal/aws/lambda"
	logsapi "lapwing.dev/lapwing/internal/aws/logs"
	s3api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/guest/program"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox/gvisor"
	"lapwing.dev/lapwing/internal/service/lambda"
	"lapwing.dev/lapwing/internal/service/logs"
	"lapwing.dev/lapwing/internal/service/s3"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/worker"
)

// Names below the data directory.
const (
	credentialsDir = "credentials"
	runtimesDir    = "runtimes"
	authorityDir   = "tls"
)

// drainTimeout is how long a stop waits for what is under way.
const drainTimeout = 15 * time.Second

// server is all of Lapwing in one process, wired together.
type server struct {
	endpoint endpoint
	account  string
	failed   chan error

	// closers end the parts, the last one first.
	closers []func(context.Context) error
}

// onClose adds what close has to do, before all that was added earlier.
func (s *server) onClose(f func(context.Context) error) { s.closers = append(s.closers, f) }

// newServer opens every part and starts to serve.
func newServer(ctx context.Context, o upOptions, log *slog.Logger) (_ *server, err error) {
	s := &server{failed: make(chan error, 2)}
	defer func() {
		if err != nil {
			err = s.close(err)
		}
	}()
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return nil, err
	}
	// Bound first, so that a port that is taken is told before anything else.
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("%w: choose another address with --listen", err)
	}
	s.onClose(func(context.Context) error { listener.Close(); return nil })

	store, err := state.Open(ctx, state.Options{Dir: o.data, Logger: log})
	if err != nil {
		return nil, err
	}
	s.onClose(func(context.Context) error { return store.Close() })
	creds, err := credentials.Open(filepath.Join(o.data, credentialsDir))
	if err != nil {
		return nil, err
	}
	s.account = creds.AccountID()
	events, err := logstore.Open(filepath.Join(o.data, "logs"), logstore.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	s.onClose(func(context.Context) error { return events.Close() })

	dispatcher, rts, reserved, err := s.openDataPlane(ctx, o, log, creds, events)
	if err != nil {
		return nil, err
	}
	services, codeURLs, err := s.openServices(ctx, o, log, store, creds, events, dispatcher, rts, reserved)
	if err != nil {
		return nil, err
	}
	gw := gateway.New(gateway.Options{
		Services: services, Credentials: creds, Region: o.region, AccountID: s.account, Logger: log, Domains: o.domains,
	})
	gw.Handle(codePrefix, codeURLs)
	return s, s.serve(o, log, gw, listener)
}

// codePrefix is where the signed URLs of function code lead.
const codePrefix = "/_lapwing/code/"

// serve starts the listeners and leaves word of where they are.
func (s *server) serve(o upOptions, log *slog.Logger, gw *gateway.Gateway, listener net.Listener) error {
	s.endpoint = endpoint{URL: "http://" + reachable(listener.Addr().String()), Region: o.region}
	var tlsConfig *tls.Config
	if o.tls {
		authority, err := gateway.OpenAuthority(filepath.Join(o.data, authorityDir), o.domains)
		if err != nil {
			return err
		}
		tlsConfig = authority.TLS()
		s.endpoint.URL = "https://" + reachable(listener.Addr().String())
		s.endpoint.CAFile = authority.File()
	}
	front := gateway.NewServer(gateway.ServerOptions{Handler: gw, Logger: log})
	s.onClose(front.Shutdown)
	go func() { s.failed <- front.Serve(listener, tlsConfig) }()
	return s.endpoint.write(o.data)
}

// reachable replaces an unspecified address by one that a client can use.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// openDataPlane opens what runs functions. reserved is to be set to the sum of
// the functions' reserved concurrency once the Lambda service is there.
func (s *server) openDataPlane(ctx context.Context, o upOptions, log *slog.Logger, creds *credentials.Store, events *logstore.Store) (*invoke.Dispatcher, *runtimes.Registry, *func() int, error) {
	rts, err := runtimes.Open(filepath.Join(o.data, runtimesDir))
	if err != nil {
		return nil, nil, nil, err
	}
	run := filepath.Join(o.data, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, nil, nil, err
	}
	guest, err := program.Install(run)
	if err != nil {
		return nil, nil, nil, err
	}
	driver, err := gvisor.New(ctx, gvisor.Options{Dir: filepath.Join(run, "sandboxes"), InitPath: guest, Logger: log})
	if err != nil {
		return nil, nil, nil, err
	}
	s.onClose(func(context.Context) error { return driver.Close() })
	w := worker.New(worker.Options{Driver: driver, Networks: isolated{}, Runtimes: rts, Logs: events, Credentials: creds, Logger: log})
	reserved := func() int { return 0 }
	d := invoke.New(invoke.Options{
		Starter: w, AccountLimit: o.concurrency, Reserved: func() int { return reserved() }, IdleTimeout: o.idle, Logger: log,
	})
	s.onClose(func(ctx context.Context) error { d.Close(ctx); return nil })
	return d, rts, &reserved, nil
}

// isolated gives functions no network.
type isolated struct{}

func (isolated) Acquire(context.Context) (worker.Network, error) {
	return worker.Network{Release: func() {}}, nil
}

// openServices opens the AWS services.
func (s *server) openServices(ctx context.Context, o upOptions, log *slog.Logger, store *state.Store, creds *credentials.Store, events *logstore.Store, dispatcher *invoke.Dispatcher, rts *runtimes.Registry, reserved *func() int) ([]*aws.Service, http.Handler, error) {
	objects, err := s3.New(ctx, s3.Options{Store: store, AccountID: s.account, Region: o.region, Logger: log})
	if err != nil {
		return nil, nil, err
	}
	images, err := image.Open(filepath.Join(o.data, "images"))
	if err != nil {
		return nil, nil, err
	}
	functions, err := lambda.New(ctx, lambda.Options{
		AccountID: s.account, Region: o.region,
		Store: store, Images: images, Invoker: dispatcher, Objects: objects,
		RuntimeVersion: func(id string) (string, error) {
			rt, err := rts.Resolve(id)
			if err != nil {
				return "", err
			}
			return rt.VersionARN(o.region), nil
		},
		Concurrency: o.concurrency, Logger: log,
	})
	if err != nil {
		return nil, nil, err
	}
	s.onClose(func(context.Context) error { functions.Close(); return nil })
	*reserved = functions.ReservedConcurrency
	return []*aws.Service{
		lambdaapi.NewService(functions),
		s3api.NewService(objects),
		logsapi.NewService(logs.New(events, logs.Options{Logger: log})),
	}, functions.CodeHandler(), nil
}

// wait returns when ctx ends or a listener fails.
func (s *server) wait(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// close ends all parts; cause is why, nil where it was asked for.
func (s *server) close(cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	errs := []error{cause}
	for i := len(s.closers) - 1; i >= 0; i-- {
		if err := s.closers[i](ctx); err != nil && !strings.Contains(err.Error(), "use of closed") {
			errs = append(errs, err)
		}
	}
	s.closers = nil
	return errors.Join(errs...)
}
