package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"

	"lapwing.dev/lapwing/test/harness"
)

// server is what is measured.
type server struct {
	name  string
	host  string // of requests
	plain int    // port of HTTP/1.1
	tls   int    // port of HTTP/2 with TLS; 0: none
	pid   int    // of its first process
	stop  func() error
}

// own is Lapwing's name in the results.
const own = "Lapwing"

// startLapwing starts the whole program, with one distribution made by its API.
func (b *bench) startLapwing(ctx context.Context) (*server, error) {
	plain, err := freePort()
	if err != nil {
		return nil, err
	}
	secure, err := freePort()
	if err != nil {
		return nil, err
	}
	h, err := harness.Start(filepath.Join(b.dir, "data"), "--edge-http", fmt.Sprintf("127.0.0.1:%d", plain), "--edge-https", fmt.Sprintf("127.0.0.1:%d", secure))
	if err != nil {
		return nil, err
	}
	s := &server{name: own, plain: plain, tls: secure, pid: h.PID, stop: h.Stop}
	if s.host, err = b.distribution(ctx, h); err != nil {
		return nil, errors.Join(err, h.Stop())
	}
	return s, b.answers(ctx, s)
}

// allViewer is AWS's origin request policy Managed-AllViewer.
const allViewer = "216adef6-5c7f-47e4-b989-5492eafa07d3"

// distribution makes the distribution, and returns its domain name. Its cache policy
// is CachingOptimized, but that what is not to be stored is not. Before somebody
// else's origin there is no lifetime by default, of errors neither, and no coding in
// the key; and the origin gets all that viewers send.
func (b *bench) distribution(ctx context.Context, h *harness.Server) (string, error) {
	client := cloudfront.NewFromConfig(h.Config())
	lifetime, codings := int64(86400), true
	var forward *string
	var errorPages *types.CustomErrorResponses
	if b.front != 0 {
		lifetime, codings, forward = 0, false, aws.String(allViewer)
		errorPages = noErrorTTL()
	}
	policy, err := client.CreateCachePolicy(ctx, &cloudfront.CreateCachePolicyInput{CachePolicyConfig: &types.CachePolicyConfig{
		Name: aws.String("bench"), MinTTL: aws.Int64(0), DefaultTTL: aws.Int64(lifetime), MaxTTL: aws.Int64(31536000),
		ParametersInCacheKeyAndForwardedToOrigin: &types.ParametersInCacheKeyAndForwardedToOrigin{
			EnableAcceptEncodingGzip: aws.Bool(codings), EnableAcceptEncodingBrotli: aws.Bool(codings),
			HeadersConfig:      &types.CachePolicyHeadersConfig{HeaderBehavior: types.CachePolicyHeaderBehaviorNone},
			CookiesConfig:      &types.CachePolicyCookiesConfig{CookieBehavior: types.CachePolicyCookieBehaviorNone},
			QueryStringsConfig: &types.CachePolicyQueryStringsConfig{QueryStringBehavior: types.CachePolicyQueryStringBehaviorAll},
		},
	}})
	if err != nil {
		return "", err
	}
	out, err := client.CreateDistribution(ctx, &cloudfront.CreateDistributionInput{
		DistributionConfig: &types.DistributionConfig{
			CallerReference: aws.String("bench"), Comment: aws.String(""), Enabled: aws.Bool(true), CustomErrorResponses: errorPages,
			Origins: &types.Origins{Quantity: aws.Int32(1), Items: []types.Origin{{
				Id: aws.String("origin"), DomainName: aws.String("localhost"),
				CustomOriginConfig: &types.CustomOriginConfig{
					HTTPPort: aws.Int32(int32(b.origin.port)), HTTPSPort: aws.Int32(443), OriginProtocolPolicy: types.OriginProtocolPolicyHttpOnly,
				},
			}}},
			DefaultCacheBehavior: &types.DefaultCacheBehavior{
				TargetOriginId: aws.String("origin"), ViewerProtocolPolicy: types.ViewerProtocolPolicyAllowAll, CachePolicyId: policy.CachePolicy.Id,
				OriginRequestPolicyId: forward,
				AllowedMethods: &types.AllowedMethods{Quantity: aws.Int32(7), Items: types.Method("").Values(), CachedMethods: &types.CachedMethods{
					Quantity: aws.Int32(2), Items: []types.Method{types.MethodGet, types.MethodHead},
				}},
			},
		},
	})
	if err != nil {
		return "", err
	}
	return *out.Distribution.DomainName, nil
}

// noErrorTTL has errors kept for as long as their origin says, and no longer.
func noErrorTTL() *types.CustomErrorResponses {
	r := &types.CustomErrorResponses{}
	for _, code := range []int32{400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504} {
		r.Items = append(r.Items, types.CustomErrorResponse{ErrorCode: aws.Int32(code), ErrorCachingMinTTL: aws.Int64(0)})
	}
	r.Quantity = aws.Int32(int32(len(r.Items)))
	return r
}

// peers are what Lapwing is measured beside.
var peers = []struct {
	name  string
	start func(b *bench, ctx context.Context, dir string) (*server, error)
}{
	{"nginx", (*bench).startNginx},
	{"Varnish", (*bench).startVarnish},
	{"HAProxy", (*bench).startHAProxy},
}

// startNginx starts nginx with a cache on disk, which the kernel holds in memory.
func (b *bench) startNginx(ctx context.Context, dir string) (*server, error) {
	plain, secure, err := b.ports(dir)
	if err != nil {
		return nil, err
	}
	lifetime := "proxy_cache_valid 200 1h;"
	if b.front != 0 {
		lifetime = ""
	}
	config := fmt.Sprintf(`
worker_processes auto;
daemon off;
pid %[1]s/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush off;
  keepalive_requests 100000000;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache levels=1:2 keys_zone=c:16m max_size=1g use_temp_path=off;
  upstream o { server 127.0.0.1:%[2]d; keepalive 64; }
  server {
    listen 127.0.0.1:%[3]d reuseport backlog=1024;
    listen 127.0.0.1:%[4]d ssl http2 reuseport backlog=1024;
    http2_max_concurrent_streams 128;
    ssl_certificate %[1]s/cert.pem;
    ssl_certificate_key %[1]s/key.pem;
    location / {
      proxy_pass http://o;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache c;
      proxy_cache_lock on;
      %[5]s
    }
  }
}
`, dir, b.origin.port, plain, secure, lifetime)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return b.startPeer(ctx, &server{name: "nginx", plain: plain, tls: secure}, "nginx", "-c", path, "-p", dir, "-g", "user root;")
}

// startVarnish starts Varnish with a cache in memory. It has no TLS.
func (b *bench) startVarnish(ctx context.Context, dir string) (*server, error) {
	plain, err := freePort()
	if err != nil {
		return nil, err
	}
	command := []string{"varnishd", "-F", "-n", dir, "-j", "none",
		"-a", fmt.Sprintf("127.0.0.1:%d", plain), "-b", fmt.Sprintf("127.0.0.1:%d", b.origin.port), "-s", "malloc,256m"}
	if b.front != 0 {
		command = append(command, "-p", "default_ttl=0")
	}
	return b.startPeer(ctx, &server{name: "Varnish", plain: plain}, command...)
}

// startHAProxy starts HAProxy with its cache in memory.
func (b *bench) startHAProxy(ctx context.Context, dir string) (*server, error) {
	plain, secure, err := b.ports(dir)
	if err != nil {
		return nil, err
	}
	both, err := concatenate(filepath.Join(dir, "both.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`
global
  maxconn 8192
  tune.bufsize 131072
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
cache c
  total-max-size 256
  max-object-size 120000
  max-age 3600
frontend f
  bind 127.0.0.1:%d
  bind 127.0.0.1:%d ssl crt %s alpn h2,http/1.1
  http-request cache-use c
  http-response cache-store c
  default_backend o
backend o
  http-request cache-use c
  http-response cache-store c
  server s 127.0.0.1:%d
`, plain, secure, both, b.origin.port)
	path := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return b.startPeer(ctx, &server{name: "HAProxy", plain: plain, tls: secure}, "haproxy", "-db", "-q", "-f", path)
}

func concatenate(to string, from ...string) (string, error) {
	var all []byte
	for _, path := range from {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		all = append(all, b...)
	}
	return to, os.WriteFile(to, all, 0o600)
}

// startPeer runs a peer's command until it answers.
func (b *bench) startPeer(ctx context.Context, s *server, command ...string) (*server, error) {
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, errors.New("not installed (scripts/setup bench)")
	}
	cmd := exec.Command(command[0], command[1:]...)
	if os.Getenv("LAPWING_BENCH_VERBOSE") != "" {
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.pid, s.host = cmd.Process.Pid, "bench.example"
	s.stop = func() error {
		_ = cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait() // it was told to end
		return nil
	}
	if err := b.answers(ctx, s); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// answers waits until a server serves what the origin has.
func (b *bench) answers(ctx context.Context, s *server) error {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	var last error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/size/10/ready"), nil)
		if err != nil {
			return err
		}
		r.Host = s.host
		answer, err := client.Do(r)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK || b.front != 0 && answer.StatusCode < http.StatusInternalServerError {
				return nil
			}
			err = errors.New(answer.Status)
		}
		last = err
	}
	return fmt.Errorf("it does not answer: %w", last)
}

func (s *server) url(path string) string { return "http://127.0.0.1:" + strconv.Itoa(s.plain) + path }

// ports returns two free ports, and makes a certificate in a directory.
func (b *bench) ports(dir string) (plain, secure int, err error) {
	if plain, err = freePort(); err == nil {
		secure, err = freePort()
	}
	if err == nil {
		err = certificate(dir)
	}
	return plain, secure, err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// certificate writes cert.pem and key.pem.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench.example"}, DNSNames: []string{"bench.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}
