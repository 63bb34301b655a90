package worker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/metrics"
	"lapwing.dev/lapwing/internal/metrics/exposition"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/usage"
)

// quickDriver makes sandboxes whose guest answers at once, over a socket.
type quickDriver struct{ fakeDriver }

func (d *quickDriver) Create(_ context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		if conns[i], err = net.FileConn(f); err != nil {
			return nil, err
		}
		f.Close()
	}
	s := &fakeSandbox{driver: &d.fakeDriver, conn: conns[0], done: make(chan struct{})}
	go func() {
		serveQuickly(conns[1])
		conns[1].Close()
		close(s.done)
	}()
	return s, nil
}

// serveQuickly is a guest whose function returns its event.
func serveQuickly(c net.Conn) {
	c.Write(proto.AppendFrame(nil, proto.TypeHello, proto.Hello{Version: proto.Version}))
	r := proto.NewReader(c)
	var out []byte
	for {
		f, err := r.Read()
		if err != nil {
			return
		}
		out = out[:0]
		switch f.Type {
		case proto.TypeStart:
			out = proto.AppendFrame(out, proto.TypeInitDone, proto.InitDone{})
		case proto.TypeInvoke:
			var inv proto.Invocation
			body, _ := f.Split(&inv)
			out = proto.AppendFrame(out, proto.TypeResponseStart, proto.ResponseStart{RequestID: inv.RequestID, ContentType: "application/json"})
			out = append(proto.AppendData(out, proto.TypeResponseData, len(body)), body...)
			out = proto.AppendFrame(out, proto.TypeResponseEnd, proto.ResponseEnd{})
			out = proto.AppendFrame(out, proto.TypeInvokeDone, proto.InvokeDone{RequestID: inv.RequestID})
		case proto.TypeShutdown:
			return
		default:
			continue
		}
		c.Write(out)
	}
}

// fullMeter does what the server does with the usage of an invocation, and when it
// begins and ends.
type fullMeter struct {
	usage    *usage.Journal
	lambda   *metrics.Lambda
	exporter *exposition.Exporter
}

func (m *fullMeter) Record(u *meter.Usage, r meter.Report) meter.Receipt {
	m.exporter.Invoked(u)
	m.lambda.Invoked(u)
	return m.usage.Record(u, r)
}

func targetOf(r *invoke.Request) metrics.Target {
	return metrics.Target{Function: r.Version.Name, Qualifier: meter.Qualifier(r.InvokedARN), Version: r.Version.Version}
}

func (m *fullMeter) Admitted(r *invoke.Request, _ invoke.Served) {
	m.lambda.Admitted(targetOf(r))
	m.exporter.InUse(r.Version.Name, 1)
}

func (m *fullMeter) Released(r *invoke.Request, _ invoke.Served) {
	m.lambda.Released(targetOf(r))
	m.exporter.InUse(r.Version.Name, -1)
}

func (m *fullMeter) Throttled(*invoke.Request, string)    {}
func (m *fullMeter) Allocated(v *function.Version, n int) {}

// reportLines are the REPORT lines in a log store that loses none.
type reportLines struct{ *logstore.Store }

func (l reportLines) Append(string, string, []meter.Report) error { return nil }
func (l reportLines) Dropped() int64                              { return 0 }
func (l reportLines) Messages(string, string, time.Time, time.Time, func(string) bool) error {
	return nil
}

// BenchmarkInvoke is a warm synchronous invocation without front door and sandbox:
// dispatching, the environment, metering and logs. Its guest takes a third.
func BenchmarkInvoke(b *testing.B) {
	dir, log := b.TempDir(), slog.New(slog.DiscardHandler)
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	logs, err := logstore.Open(filepath.Join(dir, "logs"), logstore.Options{Logger: log})
	must(err)
	defer logs.Close()
	journal, err := usage.Open(filepath.Join(dir, "usage"), usage.Options{Logs: reportLines{logs}, Logger: log})
	must(err)
	defer journal.Close()
	store, err := metrics.Open(filepath.Join(dir, "metrics"), log)
	must(err)
	defer store.Close()
	m := &fullMeter{journal, metrics.NewLambda(store), exposition.New("test")}
	defer m.lambda.Close()
	rts, err := runtimes.Open(filepath.Join(dir, "runtimes"))
	must(err)
	w := New(Options{Driver: &quickDriver{}, Networks: noNetwork{}, Runtimes: rts, Logs: logs, Credentials: noCredentials{}, Meter: m, Logger: log})
	defer w.Close()
	d := invoke.New(invoke.Options{Starter: w, Observer: m, Logger: log, Processors: new(HostProcessors), AccountLimit: 1e6})
	defer d.Close(b.Context())
	v := &function.Version{
		Name: "f", Version: "$LATEST", Account: "000000000000", Region: "us-east-1", Role: "arn:aws:iam::000000000000:role/r", Runtime: "provided.al2023",
		Architecture: "x86_64", MemoryMB: 1769, EphemeralMB: 512, Timeout: 3 * time.Second, Logging: function.Logging{Group: "/aws/lambda/f", Format: "Text"},
	}
	payload := make([]byte, 1024)
	b.ReportAllocs()
	b.SetParallelism(16)
	cpu := func() time.Duration {
		var u syscall.Rusage
		must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := cpu()
	defer func() { b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op") }()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := &invoke.Request{Version: v, InvokedARN: v.FunctionARN(), RequestID: requestID, Payload: payload, TraceID: "Root=1-5759e988-bd862e3fe1be46a994272793", After: func(rest func()) { rest() }}
			if _, err := d.Invoke(b.Context(), req, io.Discard); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
