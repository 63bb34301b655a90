package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	cloudwatchapi "lapwing.dev/lapwing/internal/aws/cloudwatch"
	ecrapi "lapwing.dev/lapwing/internal/aws/ecr"
	iamapi "lapwing.dev/lapwing/internal/aws/iam"
	kinesisapi "lapwing.dev/lapwing/internal/aws/kinesis"
	lambdaapi "lapwing.dev/lapwing/internal/aws/lambda"
	logsapi "lapwing.dev/lapwing/internal/aws/logs"
	s3api "lapwing.dev/lapwing/internal/aws/s3"
	stsapi "lapwing.dev/lapwing/internal/aws/sts"
	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge/dns"
	"lapwing.dev/lapwing/internal/edge/location"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/functionurl"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/image/container"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/metrics"
	"lapwing.dev/lapwing/internal/network"
	"lapwing.dev/lapwing/internal/registry"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox/gvisor"
	"lapwing.dev/lapwing/internal/sandbox/program"
	"lapwing.dev/lapwing/internal/service/cloudwatch"
	"lapwing.dev/lapwing/internal/service/ecr"
	"lapwing.dev/lapwing/internal/service/iam"
	"lapwing.dev/lapwing/internal/service/kinesis"
	"lapwing.dev/lapwing/internal/service/lambda"
	"lapwing.dev/lapwing/internal/service/logs"
	"lapwing.dev/lapwing/internal/service/s3"
	"lapwing.dev/lapwing/internal/service/sts"
	"lapwing.dev/lapwing/internal/snapshot"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/stream"
	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/otlp"
	"lapwing.dev/lapwing/internal/usage"
	"lapwing.dev/lapwing/internal/worker"
)

// Names below the data directory.
const (
	credentialsDir = "credentials"
	runtimesDir    = "runtimes"
	authorityDir   = "tls"
	registriesFile = "registries.json"
)

// memoryLow is how much memory of the host idle environments leave to others, in
// bytes: more than what sandboxes are admitted for, so that new ones have room.
const memoryLow = 512 << 20

// drainTimeout is how long a stop waits for what is under way.
const drainTimeout = 15 * time.Second

// server is all of Lapwing in one process, wired together.
type server struct {
	opts     upOptions
	log      *slog.Logger
	endpoint endpoint
	failed   chan error // of the listeners

	tracer      *otlp.Tracer  // nil: off
	sampler     trace.Sampler // of the whole account, as X-Ray's
	store       *state.Store
	nodes       *cluster.Authority // of the installation's nodes; nil: none can join
	node        *cluster.Node      // this process among them, nil likewise
	locations   atomic.Pointer[location.Core]
	gateway     *gateway.Gateway
	member      *location.Node     // this process as an edge location of a core elsewhere; nil: it is none
	credentials *credentials.Store // nil at an edge location
	issuer      issuer
	logs        worker.Logs // of functions
	events      *logstore.Store
	usage       *usage.Journal
	metrics     *metrics.Store
	metering    *metering
	runtimes    *runtimes.Registry
	network     *network.Pool
	snapshots   *snapshot.Store // nil: off
	worker      *worker.Worker
	dispatcher  *invoke.Dispatcher
	queue       *events.Queue
	images      *image.Store
	registry    *registry.Registry
	functions   *lambda.Service
	streams     *kinesis.Service
	services    []*aws.Service
	edge        *edgeNode
	names       *dns.Config // of the DNS server for viewers; nil: there is none

	edgeHTTP, edgeHTTPS net.Listener   // nil: none
	edgeQUIC            net.PacketConn // nil: none

	address net.Addr // of the endpoint

	// closers end the parts, the last one first.
	closers []func(context.Context) error
}

// onClose adds what close has to do before all that was added earlier.
func (s *server) onClose(f func(context.Context) error) { s.closers = append(s.closers, f) }

// newServer opens every part and starts to serve.
func newServer(ctx context.Context, o upOptions, log *slog.Logger) (_ *server, err error) {
	s := &server{opts: o, log: log, failed: make(chan error, 6)}
	defer func() {
		if err != nil {
			err = s.close(err)
		}
	}()
	// Bound first, so that a port that is taken is told before anything else.
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("%w: choose another address with --listen", err)
	}
	s.onClose(func(context.Context) error {
		_ = listener.Close() // closed already, if it ever served
		return nil
	})
	s.address = listener.Addr()
	if err := s.listenEdge(ctx); err != nil {
		return nil, err
	}
	parts, serve := []func(context.Context) error{s.openTracer, s.openState, s.openDataPlane, s.openQueue, s.openEdge, s.openLocations, s.openServices}, s.serve
	if o.node.roles == roleEdge {
		parts, serve = []func(context.Context) error{s.openTracer, s.openNode, s.openState, s.openDataPlane, s.openEdge}, s.serveNode
	}
	for _, open := range parts {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return s, serve(listener)
}

// openTracer opens the export of spans, where a collector is named.
func (s *server) openTracer(ctx context.Context) (err error) {
	s.tracer, err = otlp.Open(ctx, otlp.Options{Endpoint: s.opts.otlp, Version: version, Logger: s.log})
	s.onClose(func(ctx context.Context) error {
		if err := s.tracer.Close(ctx); err != nil {
			s.log.Warn("the last spans were not exported", "error", err)
		}
		return nil
	})
	return err
}

// openState opens what lasts.
func (s *server) openState(ctx context.Context) (err error) {
	if err := makeDataDir(s.opts.data); err != nil {
		return err
	}
	hub, err := s.openHub()
	if err != nil {
		return err
	}
	s.store, err = state.Open(ctx, state.Options{Dir: s.opts.data, Logger: s.log, Hub: hub, Leaf: s.leaf()})
	if errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%w: is another `lapwing up` running? Choose another directory with --data", err)
	}
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.store.Close() })
	if s.member == nil { // those of an edge location are the core's
		if s.credentials, err = credentials.Open(filepath.Join(s.opts.data, credentialsDir)); err != nil {
			return err
		}
		s.issuer = s.credentials
	}
	if s.events, err = logstore.Open(filepath.Join(s.opts.data, "logs"), logstore.Options{Logger: s.log}); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.events.Close() })
	s.logs = s.events
	if s.member != nil {
		s.logs = nodeLogs{s.events, s.member}
	}
	if s.images, err = image.Open(filepath.Join(s.opts.data, "images"), s.log); err != nil {
		return err
	}
	s.onClose(s.images.Close)
	if err := s.openUsage(); err != nil {
		return err
	}
	return s.openMetrics()
}

// makeDataDir makes the data directory: its parts are root's alone, but AWS
// clients of other users must come through to the certificate authority.
func makeDataDir(dir string) error { return os.MkdirAll(dir, 0o711) }

// openDataPlane opens what runs functions.
func (s *server) openDataPlane(ctx context.Context) (err error) {
	if s.runtimes, err = runtimes.Open(filepath.Join(s.opts.data, runtimesDir)); err != nil {
		return err
	}
	run := filepath.Join(s.opts.data, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return err
	}
	sandboxProgram, err := program.Install(run)
	if err != nil {
		return err
	}
	egress := network.EgressOn
	if !s.opts.egress {
		egress = network.EgressOff
	}
	if s.network, err = network.Open(network.Options{Dir: filepath.Join(run, "network"), Egress: egress, Logger: s.log}); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.network.Close() })
	driver, err := gvisor.New(ctx, gvisor.Options{
		Dir: filepath.Join(run, "sandboxes"), SandboxPath: sandboxProgram, Logger: s.log, Prepared: gvisor.DefaultPrepared,
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return driver.Close() })
	if err := s.openSnapshots(sandboxProgram); err != nil {
		return err
	}
	s.worker = worker.New(worker.Options{
		Driver: driver, Networks: networks{s.network}, Runtimes: s.runtimes, Logs: metricLogs{s.logs, s.metrics}, Credentials: s.issuer, Meter: s.metering, Logger: s.log,
		Sampler: &s.sampler, Tracer: s.tracer, Snapshots: s.snapshots, SnapshotsFirst: s.opts.snapshots == snapshotsFirst, BlanksFirst: s.opts.snapshots == snapshotsRuntimes, Standbys: worker.DefaultStandbys,
	})
	s.onClose(func(context.Context) error { s.worker.Close(); return nil })
	s.dispatcher = invoke.New(invoke.Options{
		Starter:      s.worker,
		AccountLimit: s.opts.concurrency,
		Memory:       worker.HostMemory{},
		MemoryLow:    memoryLow,
		Processors:   new(worker.HostProcessors),
		IdleTimeout:  s.opts.idle,
		Observer:     s.metering,
		Logger:       s.log,
		Tracer:       s.tracer,
	})
	s.onClose(func(ctx context.Context) error { s.dispatcher.Close(ctx); return nil })
	s.onClose(func(context.Context) error { s.metering.provisioned.Close(); return nil })
	return nil
}

// openQueue opens the queue of asynchronous invocations.
func (s *server) openQueue(ctx context.Context) (err error) {
	if s.queue, err = events.Open(ctx, events.Options{Store: s.store, Invoker: s.dispatcher, Observer: s.metering, Logger: s.log}); err != nil {
		return err
	}
	s.onClose(func(ctx context.Context) error { s.queue.Close(ctx); return nil })
	return nil
}

// networks gives the worker its sandboxes' networks.
type networks struct{ pool *network.Pool }

// Acquire implements worker.Networks.
func (n networks) Acquire(ctx context.Context, bytesPerSecond int64) (worker.Network, error) {
	a, err := n.pool.Acquire(ctx, bytesPerSecond)
	if err != nil {
		return worker.Network{}, err
	}
	return worker.Network{Network: a.Network, Mounts: a.Mounts, Endpoint: a.Endpoint, Release: a.Release}, nil
}

// openServices opens the AWS services.
func (s *server) openServices(ctx context.Context) error {
	account := s.credentials.AccountID()
	principals, err := iam.Open(ctx, s.store, account)
	if err != nil {
		return err
	}
	s.credentials.SetSource(principals)
	objects, err := s3.New(ctx, s3.Options{Store: s.store, AccountID: account, Region: s.opts.region, Logger: s.log})
	if err != nil {
		return err
	}
	if s.registry, err = registry.Open(ctx, registry.Options{
		Store: s.store, Dir: filepath.Join(s.opts.data, "uploads"), AccountID: account, Region: s.opts.region, Logger: s.log,
	}); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { s.registry.Close(); return nil })
	pulled, err := s.store.BlobSet("container-images")
	if err != nil {
		return err
	}
	containers := container.New(container.Options{
		Images: s.images, Blobs: pulled, Local: s.registry, AccountID: account, Architecture: lambda.HostArchitecture(),
		Hosts: s.registryHosts(), Domains: s.opts.domains, ConfigFile: s.registriesFile(),
	})
	var snapshots lambda.Snapshots
	if s.snapshots != nil {
		snapshots = s.worker
	}
	s.functions, err = lambda.New(ctx, lambda.Options{
		Snapshots: snapshots,
		AccountID: account, Region: s.opts.region, Concurrency: s.opts.concurrency, Logger: s.log,
		Store: s.store, Images: s.images, Invoker: configured{s.dispatcher, s.metering.lambda}, Events: s.queue, Objects: objects, Containers: containers, RuntimeVersion: s.runtimeVersion,
		RecursionStopped: s.metering.RecursionStopped, Sampler: &s.sampler,
		Roles: principals, Replicas: s.edge.records.Replicas,
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { s.functions.Close(); return nil })
	s.services = []*aws.Service{
		iamapi.NewService(principals),
		lambdaapi.NewService(s.functions),
		logsapi.NewService(logs.New(s.events, logs.Options{Logger: s.log, Put: func(message string) { s.metrics.Collect(metrics.Embedded(message)) }})),
		s3api.NewService(objects),
		cloudwatchapi.NewService(cloudwatch.New(s.metrics, nil)),
		ecrapi.NewService(ecr.New(s.registry, s.credentials, nil)),
		stsapi.NewService(sts.New(s.credentials, principals)),
	}
	if err := s.openStreams(ctx); err != nil {
		return err
	}
	return s.openCDN(ctx, objects)
}

// openStreams opens data streams, whose shards are logs of their own on the disk.
func (s *server) openStreams(ctx context.Context) error {
	logs, err := stream.Open(filepath.Join(s.opts.data, "streams"), stream.Options{Logger: s.log})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return logs.Close() })
	streams, err := kinesis.New(ctx, kinesis.Options{Store: s.store, Streams: logs, AccountID: s.credentials.AccountID(), Region: s.opts.region, Logger: s.log})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { streams.Close(); return nil })
	s.streams = streams
	s.services = append(s.services, kinesisapi.NewService(streams))
	return nil
}

// runtimeVersion tells the Lambda service what serves a runtime id here.
func (s *server) runtimeVersion(region, id string) (string, error) {
	rt, err := s.runtimes.Resolve(id)
	if err != nil {
		return "", err
	}
	return rt.VersionARN(region), nil
}

// registryHosts are the addresses by which our own registry is known to
// everybody, beside the names that it was given.
func (s *server) registryHosts() []string {
	host, port, err := net.SplitHostPort(reachable(s.address))
	if err != nil {
		return nil
	}
	return []string{net.JoinHostPort(host, port), net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("localhost", port)}
}

// registriesFile is what the operator says of remote registries.
func (s *server) registriesFile() string {
	return cmp.Or(s.opts.registries, filepath.Join(s.opts.data, registriesFile))
}

// serve starts the listeners and leaves word of where they are.
func (s *server) serve(listener net.Listener) error {
	s.gateway = gateway.New(gateway.Options{
		Services: s.services, Credentials: s.credentials, Region: s.opts.region, AccountID: s.credentials.AccountID(),
		Logger: s.log, Domains: append([]string{network.Zone}, s.opts.domains...),
		Tracer: s.tracer,
		Edge:   s.edge.server, Authorizer: originAuthorizer{},
		Registry: s.registry.Handler(registry.HandlerOptions{Authenticate: s.credentials.CheckRegistryToken, Logger: s.log}),
		FunctionURLs: meteredURLs{
			functionurl.New(functionurl.Options{Functions: s.functions, Credentials: s.credentials, Logger: s.log}), s.functions, s.metering.lambda,
		},
	})
	gw := s.gateway
	gw.Handle(lambda.CodePath, s.functions.CodeHandler())
	s.endpoint = endpoint{URL: "http://" + reachable(listener.Addr()), Region: s.opts.region}
	var tlsConfig *tls.Config
	if s.opts.tls {
		authority := s.edge.authority
		tlsConfig = s.edge.withEdge(authority.TLS())
		s.endpoint.URL = "https://" + reachable(listener.Addr())
		s.endpoint.CAFile = authority.File()
	}
	inside, err := s.network.Listen()
	if err != nil {
		return err
	}
	gw.Handle(metricsPath, outside(inside.Addr(), s.metering.exporter.Handler()))
	s.listen(gw, listener, tlsConfig)
	s.listen(gw, inside, nil)
	if err := errors.Join(s.serveEdge(gw), s.serveNodes(), s.serveDNS()); err != nil {
		return err
	}
	// Functions find the endpoint served from their first event on.
	s.onClose(func(context.Context) error { s.streams.EndSubscriptions(); return nil })
	s.queue.Start(s.functions)
	s.onClose(func(context.Context) error { s.queue.Stop(); return nil })
	s.onClose(func(context.Context) error { return os.Remove(filepath.Join(s.opts.data, endpointFile)) })
	return s.endpoint.write(s.opts.data)
}

// listen serves one listener until close.
func (s *server) listen(h http.Handler, l net.Listener, tlsConfig *tls.Config) {
	front := gateway.NewServer(gateway.ServerOptions{Handler: h, Logger: s.log})
	s.onClose(front.Shutdown)
	go func() { s.failed <- front.Serve(l, tlsConfig) }()
}

// run serves until close, in a goroutine of its own.
func (s *server) run(serve func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := serve(ctx); err != nil {
			s.failed <- err
		}
	}()
	s.onClose(func(context.Context) error {
		cancel()
		<-ended
		return nil
	})
}

// reachable returns an address that a client can use, where a listener is bound
// to all of the host's.
func reachable(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
	}
	return a.String()
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
		errs = append(errs, s.closers[i](ctx))
	}
	s.closers = nil
	return errors.Join(errs...)
}
