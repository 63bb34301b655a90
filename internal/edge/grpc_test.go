package edge

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

func TestCallsOfGRPCPassWithTheirStreamsAndTrailers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := health.NewServer()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, served)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		<-ended
	}()
	l := newLocation(t, http.NotFoundHandler(), with(func(d *distribution.Distribution) {
		d.Origins[0] = customOrigin("main", "http://"+listener.Addr().String())
		d.Behaviours[0].GRPC = true
		d.Behaviours[0].AllowedMethods = []string{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}
	}))
	_, secure, certificate := viewers(t, l)
	roots := x509.NewCertPool()
	roots.AddCert(certificate.Leaf)
	c, err := grpc.NewClient(secure.String(), grpc.WithAuthority(host), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: host})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client := grpc_health_v1.NewHealthClient(c)
	answer, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("%v %v", answer, err)
	}
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("the status of an error: %v", err)
	}
	stream, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING} {
		message, err := stream.Recv()
		if err != nil || message.Status != want {
			t.Fatalf("%v %v, want %v", message, err, want)
		}
		served.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
}

func TestServerTimingIsSentToThoseWhoAskForIt(t *testing.T) {
	l := newLocation(t, answers(200, "x"), with(func(d *distribution.Distribution) {
		d.Behaviours[0].ResponseHeaders = &distribution.ResponseHeaders{ServerTiming: 0}
	}))
	if r := l.get("/a"); r.Header.Get("Server-Timing") != "" {
		t.Errorf("%v", r.Header)
	}
	r := l.do("GET", "/a", http.Header{"Pragma": {"server-timing"}})
	if got := r.Header.Get("Server-Timing"); !strings.HasPrefix(got, `cdn-cache-hit,cdn-pop;desc="TST50-P1",cdn-rid;desc="`+r.Header.Get("X-Amz-Cf-Id")) {
		t.Errorf("%q", got)
	}
}
