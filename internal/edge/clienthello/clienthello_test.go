package clienthello

import (
	"crypto/tls"
	"net"
	"regexp"
	"testing"
)

// The examples are those of the descriptions of JA3 and JA4.
func TestFingerprintsAreThoseOfTheirDescriptions(t *testing.T) {
	old := Of(&tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS10}, CipherSuites: []uint16{47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4},
		Extensions: []uint16{0, 10, 11}, SupportedCurves: []tls.CurveID{23, 24, 25}, SupportedPoints: []uint8{0},
	}, TCP)
	if got, want := old.JA3(), "ada70206e40642a3e4461f35503241d5"; got != want {
		t.Errorf("JA3 %s, want %s", got, want)
	}
	bare := Of(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS10}, CipherSuites: []uint16{4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99}}, TCP)
	if got, want := bare.JA3(), "de350869b8c85de67a350c8d186f11e6"; got != want {
		t.Errorf("JA3 without extensions %s, want %s", got, want)
	}
	if got := bare.JA4(); !regexp.MustCompile(`^t10i110000_[0-9a-f]{12}_000000000000$`).MatchString(got) {
		t.Errorf("JA4 without extensions %s", got)
	}
	chrome := Of(&tls.ClientHelloInfo{
		SupportedVersions: []uint16{0x7a7a, tls.VersionTLS13, tls.VersionTLS12},
		CipherSuites:      []uint16{0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions:        []uint16{0xfafa, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015},
		SignatureSchemes:  []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		SupportedProtos:   []string{"h2", "http/1.1"},
	}, TCP)
	if got, want := chrome.JA4(), "t13d1516h2_8daaf6152771_e5627efa2ab1"; got != want {
		t.Errorf("JA4 %s, want %s", got, want)
	}
	chrome.protocol = "\xab"
	if got := chrome.ja4Protocol(); got != "ab" {
		t.Errorf("the protocol %q, want its hexadecimal digits", got)
	}
}

func TestAConnectionsHelloIsWhatTheClientSent(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	got := make(chan *Hello, 1)
	go func() {
		_ = tls.Server(server, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			got <- Of(h, TCP)
			return nil, net.ErrClosed // that is all we want to know
		}}).Handshake()
	}()
	_ = tls.Client(client, &tls.Config{ServerName: "www.example.net", NextProtos: []string{"http/1.1"}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}).Handshake()
	if ja4 := (<-got).JA4(); !regexp.MustCompile(`^t12d01[0-9]{2}h1_[0-9a-f]{12}_[0-9a-f]{12}$`).MatchString(ja4) {
		t.Errorf("JA4 %s", ja4)
	}
}
