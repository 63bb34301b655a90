// Package clienthello names viewers by how they begin a TLS handshake: the public
// fingerprints JA3 (Salesforce) and JA4 (FoxIO), from what crypto/tls tells of a
// ClientHello.
package clienthello

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Extensions with a part of their own in the fingerprints (RFC 8446, 4.2).
const (
	extensionServerName = 0
	extensionALPN       = 16
	extensionVersions   = 43
)

// Transport is what a handshake goes over, as JA4 names it.
type Transport byte

// The transports.
const (
	TCP  Transport = 't'
	QUIC Transport = 'q'
)

// Hello is what a viewer's ClientHello says.
type Hello struct {
	over Transport
	// version is the one of the hello itself, versions what it supports.
	version    uint16
	versions   []uint16
	ciphers    []uint16
	extensions []uint16
	curves     []tls.CurveID
	points     []uint8
	signatures []tls.SignatureScheme
	protocol   string // the first of ALPN
}

// Of keeps what a ClientHello says.
func Of(h *tls.ClientHelloInfo, over Transport) *Hello {
	v := &Hello{
		over: over, versions: without(h.SupportedVersions), ciphers: without(h.CipherSuites), extensions: without(h.Extensions),
		curves: without(h.SupportedCurves), points: h.SupportedPoints, signatures: without(h.SignatureSchemes),
	}
	// crypto/tls does not tell the version of the hello itself. Who names versions in
	// an extension says TLS 1.2 there (RFC 8446, 4.1.2); of others it is the highest
	// that they support.
	if v.version = tls.VersionTLS12; !slices.Contains(h.Extensions, extensionVersions) && len(v.versions) > 0 {
		v.version = slices.Max(v.versions)
	}
	if len(h.SupportedProtos) > 0 {
		v.protocol = h.SupportedProtos[0]
	}
	return v
}

// without returns a list without the values that say nothing (GREASE, RFC 8701).
func without[T ~uint16](list []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff })
}

// JA3 returns the MD5 of version, ciphers, extensions, curves and point formats.
func (v *Hello) JA3() string {
	text := strconv.Itoa(int(v.version)) + "," + dashed(v.ciphers) + "," + dashed(v.extensions) + "," + dashed(v.curves) + "," + dashed(v.points)
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func dashed[T ~uint8 | ~uint16](list []T) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(strconv.Itoa(int(n)))
	}
	return b.String()
}

// JA4 returns the fingerprint in its three parts: what is offered, the hash of the
// ciphers in order of their numbers, and that of extensions, likewise, and signature
// algorithms.
func (v *Hello) JA4() string {
	rest := slices.DeleteFunc(slices.Clone(v.extensions), func(e uint16) bool { return e == extensionServerName || e == extensionALPN })
	second := sorted(rest)
	if len(v.signatures) > 0 {
		second += "_" + commas(v.signatures)
	}
	if len(v.extensions) == 0 {
		second = ""
	}
	destination := "i"
	if slices.Contains(v.extensions, extensionServerName) {
		destination = "d"
	}
	return fmt.Sprintf("%c%s%s%02d%02d%s_%s_%s", v.over, v.ja4Version(), destination, min(len(v.ciphers), 99), min(len(v.extensions), 99), v.ja4Protocol(), short(sorted(v.ciphers)), short(second))
}

func (v *Hello) ja4Version() string {
	highest := v.version
	if len(v.versions) > 0 {
		highest = slices.Max(v.versions)
	}
	return cmp.Or(map[uint16]string{
		tls.VersionTLS13: "13", tls.VersionTLS12: "12", tls.VersionTLS11: "11", tls.VersionTLS10: "10", 0x0300: "s3",
	}[highest], "00")
}

// ja4Protocol is the first and the last character of the first protocol, in
// hexadecimal where they are others than letters and digits.
func (v *Hello) ja4Protocol() string {
	p := v.protocol
	if p == "" {
		return "00"
	}
	if !alphanumeric(p[0]) || !alphanumeric(p[len(p)-1]) {
		p = hex.EncodeToString([]byte(p))
	}
	return p[:1] + p[len(p)-1:]
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func sorted(list []uint16) string { return commas(slices.Sorted(slices.Values(list))) }

func commas[T ~uint16](list []T) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%04x", uint16(n))
	}
	return b.String()
}

// short is the beginning of a hash; zeros of nothing.
func short(text string) string {
	if text == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

type key struct{}

// NewContext returns a context that knows a ClientHello, which those of the
// connection's requests descend from. It may become known after the context: until the
// handshake is over.
func NewContext(ctx context.Context, v *Hello) context.Context {
	return context.WithValue(ctx, key{}, v)
}

// From returns the ClientHello that a context knows; nil: none.
func From(ctx context.Context) *Hello {
	v, _ := ctx.Value(key{}).(*Hello)
	return v
}
