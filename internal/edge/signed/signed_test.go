package signed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

func encode(b []byte) string {
	return strings.NewReplacer("+", "-", "=", "_", "/", "~").Replace(base64.StdEncoding.EncodeToString(b))
}

func publicKey(t testing.TB, id string, key crypto.PublicKey) distribution.PublicKey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return distribution.PublicKey{ID: id, PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

func TestSignedRequests(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeys([]distribution.PublicKey{publicKey(t, "K1", &key.PublicKey), publicKey(t, "K2", &curve.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text string) string {
		sum := sha1.Sum([]byte(text))
		b, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return encode(b)
	}
	signCurve := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		b, err := ecdsa.SignASN1(rand.Reader, curve, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return encode(b)
	}
	now := time.Unix(1_800_000_000, 0)
	later, before := now.Unix()+60, now.Unix()-60
	canned := func(url string, expires int64) string {
		return fmt.Sprintf(`{"Statement":[{"Resource":"%s","Condition":{"DateLessThan":{"AWS:EpochTime":%d}}}]}`, url, expires)
	}
	const url = "http://d1.cloudfront.net/a.jpg"
	cannedQuery := func(url string, expires int64) string {
		return fmt.Sprintf("Expires=%d&Signature=%s&Key-Pair-Id=K1", expires, sign(canned(url, expires)))
	}
	custom := func(policy string) string {
		return "Policy=" + encode([]byte(policy)) + "&Signature=" + sign(policy) + "&Key-Pair-Id=K1"
	}
	condition := func(resource, more string) string {
		return fmt.Sprintf(`{"Statement":[{"Resource":"%s","Condition":{"DateLessThan":{"AWS:EpochTime":%d}%s}}]}`, resource, later, more)
	}
	for _, c := range []struct {
		name, query string
		cookie      string
		want        string
	}{
		{"nothing", "", "", "MissingKey"},
		{"canned", cannedQuery(url, later), "", ""},
		{"canned, with the URL's own query", "size=m&" + cannedQuery(url+"?size=m", later), "", ""},
		{"canned, for another URL", cannedQuery(url+"x", later), "", "AccessDenied"},
		{"canned, expired", cannedQuery(url, before), "", "AccessDenied"},
		{"canned, with the time changed", strings.Replace(cannedQuery(url, before), fmt.Sprint(before), fmt.Sprint(later), 1), "", "AccessDenied"},
		{"unknown key", strings.Replace(cannedQuery(url, later), "Key-Pair-Id=K1", "Key-Pair-Id=K9", 1), "", "InvalidKey"},
		{"malformed signature", fmt.Sprintf("Expires=%d&Signature=***&Key-Pair-Id=K1", later), "", "MalformedSignature"},
		{"custom", custom(condition("http://d1.cloudfront.net/*", "")), "", ""},
		{"custom, elsewhere", custom(condition("http://d1.cloudfront.net/b*", "")), "", "AccessDenied"},
		{"custom, any scheme", custom(condition("http*://d1.cloudfront.net/a.jpg", "")), "", ""},
		{"custom, network", custom(condition("*", `,"IpAddress":{"AWS:SourceIp":"192.0.2.0/24"}`)), "", ""},
		{"custom, other network", custom(condition("*", `,"IpAddress":{"AWS:SourceIp":"198.51.100.1"}`)), "", "AccessDenied"},
		{"custom, not yet", custom(condition("*", fmt.Sprintf(`,"DateGreaterThan":{"AWS:EpochTime":%d}`, later))), "", "AccessDenied"},
		{"custom, no JSON", custom("{"), "", "MalformedPolicy"},
		{"custom, without an end", custom(`{"Statement":[{"Resource":"*","Condition":{}}]}`), "", "MalformedPolicy"},
		{"curve", fmt.Sprintf("Expires=%d&Signature=%s&Key-Pair-Id=K2&Hash-Algorithm=SHA256", later, signCurve(canned(url, later))), "", ""},
		{"curve, unknown hash", fmt.Sprintf("Expires=%d&Signature=%s&Key-Pair-Id=K2&Hash-Algorithm=MD5", later, signCurve(canned(url, later))), "", "AccessDenied"},
		{"cookies", "", "CloudFront-" + strings.ReplaceAll(custom(condition("http://d1.cloudfront.net/*", "")), "&", "; CloudFront-"), ""},
		{"cookies, expired", "", fmt.Sprintf("CloudFront-Expires=%d; CloudFront-Signature=%s; CloudFront-Key-Pair-Id=K1", before, sign(canned(url, before))), "AccessDenied"},
	} {
		r := &Request{URL: url, Query: c.query, Header: http.Header{"Cookie": {c.cookie}}, Client: netip.MustParseAddr("192.0.2.7")}
		err := keys.Verify(r, now)
		got := ""
		if e, ok := errors.AsType[*Error](err); ok {
			got = e.Code
		}
		if got != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	r := &Request{URL: "http://d1.cloudfront.net/a/../b/x", Normal: "http://d1.cloudfront.net/b/x", Query: custom(condition("http://d1.cloudfront.net/a/*", ""))}
	if err := keys.Verify(r, now); !errors.Is(err, errDenied) {
		t.Errorf("dot segments led out of a policy: %v", err)
	}
	if got := Strip("size=m&" + cannedQuery(url, later) + "&b=1"); got != "size=m&b=1" {
		t.Errorf("what is left of the query: %q", got)
	}
}

func TestKeysThatCannotBeReadAreTold(t *testing.T) {
	if _, err := ParseKeys([]distribution.PublicKey{{ID: "K1", PEM: "x"}}); err == nil {
		t.Error("no error")
	}
}

// Whatever a viewer sends, it is refused, not let in, and nothing panics.
func FuzzNothingUnsignedPasses(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	keys, err := ParseKeys([]distribution.PublicKey{publicKey(f, "K1", &key.PublicKey)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Expires=1&Signature=a&Key-Pair-Id=K1", "")
	f.Add("Policy=e30_&Signature=YQ__&Key-Pair-Id=K1", "CloudFront-Policy=e30_; CloudFront-Signature=YQ__; CloudFront-Key-Pair-Id=K1")
	f.Fuzz(func(t *testing.T, query, cookie string) {
		r := &Request{URL: "http://h/a", Query: query, Header: http.Header{"Cookie": {cookie}}}
		if err := keys.Verify(r, time.Unix(0, 0)); err == nil {
			t.Error("it was let in")
		}
		Strip(query)
	})
}
