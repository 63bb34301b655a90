package tier

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// The paths by which locations ask one another.
const (
	Prefix     = "/v1/edge/"
	ObjectPath = Prefix + "object" // for an object
	ViewerPath = Prefix + "viewer" // to serve a viewer
)

// HandOver has another location serve a viewer's request, and passes on what that
// answers. failed answers where it cannot be reached.
func (n *Network) HandOver(p *Peer, w http.ResponseWriter, r *http.Request, failed func(error)) {
	v := url.Values{"host": {r.Host}, "target": {r.RequestURI}, "viewer": {r.RemoteAddr}, "proto": {r.Proto}}
	if r.TLS != nil {
		v.Set("tls", strconv.Itoa(int(r.TLS.Version)))
		v.Set("cipher", strconv.Itoa(int(r.TLS.CipherSuite)))
		v.Set("name", r.TLS.ServerName)
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(to *httputil.ProxyRequest) {
			to.Out.URL = &url.URL{Scheme: "https", Host: p.Address, Path: ViewerPath}
			to.Out.Host = p.Address
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if sent, ok := to.In.Header[name]; ok { // the viewer's own
					to.Out.Header[name] = sent
				}
			}
			to.Out.Header[aside] = []string{v.Encode()}
		},
		Transport: p.transport, FlushInterval: -1,
		ErrorLog:     slog.NewLogLogger(n.options.Logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed(err) },
	}
	proxy.ServeHTTP(w, r)
}

// HandedOver returns the viewer's request that another location hands over.
func HandedOver(r *http.Request) (*http.Request, error) {
	v, err := valuesOf(r)
	if err != nil {
		return nil, err
	}
	viewer, err := netip.ParseAddrPort(v.Get("viewer"))
	if err != nil {
		return nil, errRequest
	}
	target := v.Get("target")
	u, err := url.ParseRequestURI(target)
	if err != nil && strings.HasPrefix(target, "/") {
		path, query, _ := strings.Cut(target, "?")
		u, err = &url.URL{Path: path, RawQuery: query}, nil // as the viewer wrote it
	}
	major, minor, ok := http.ParseHTTPVersion(v.Get("proto"))
	if err != nil || !ok {
		return nil, errRequest
	}
	delete(r.Header, aside)
	out := r.WithContext(r.Context()) // a copy
	out.Host, out.RequestURI, out.URL, out.RemoteAddr = v.Get("host"), target, u, viewer.String()
	out.Proto, out.ProtoMajor, out.ProtoMinor, out.TLS = v.Get("proto"), major, minor, nil
	if v.Has("tls") {
		version, err1 := strconv.ParseUint(v.Get("tls"), 10, 16)
		cipher, err2 := strconv.ParseUint(v.Get("cipher"), 10, 16)
		if err1 != nil || err2 != nil {
			return nil, errRequest
		}
		out.TLS = &tls.ConnectionState{Version: uint16(version), CipherSuite: uint16(cipher), ServerName: v.Get("name"), HandshakeComplete: true}
	}
	return out, nil
}
