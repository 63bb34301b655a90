package sigv4

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
)

const storeARN = "arn:aws:cloudfront::123456789012:key-value-store/8aa76c93-3198-462c-aaf6-3f1ba3f52e2b"

// recorder takes requests instead of a server.
type recorder struct{ last *http.Request }

func (c *recorder) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	c.last = r
	c.last.Body = io.NopCloser(bytes.NewReader(body))
	return &http.Response{StatusCode: 400, Body: http.NoBody, Header: http.Header{}}, nil
}

// signedBySDK returns a request of the SDK's client, which signs with SigV4A.
func signedBySDK(t *testing.T, secret string) *http.Request {
	t.Helper()
	var c recorder
	client := cloudfrontkeyvaluestore.New(cloudfrontkeyvaluestore.Options{
		Region: "eu-central-1", HTTPClient: &c, BaseEndpoint: sdkaws.String("http://localhost:9400"), Retryer: sdkaws.NopRetryer{},
		Credentials: sdkcredentials.NewStaticCredentialsProvider(testKey, secret, ""),
	})
	_, err := client.PutKey(t.Context(), &cloudfrontkeyvaluestore.PutKeyInput{
		KvsARN: sdkaws.String(storeARN), Key: sdkaws.String("a key/ü"), Value: sdkaws.String("v"), IfMatch: sdkaws.String("E1"),
	})
	if err == nil || c.last == nil {
		t.Fatalf("no request was made: %v", err)
	}
	body, err := io.ReadAll(c.last.Body)
	if err != nil {
		t.Fatal(err)
	}
	return received(t, c.last, body)
}

func asymmetricRules() *Rules {
	rules := rulesFor(RESTJSON, "cloudfront-keyvaluestore")
	rules.Asymmetric = true
	return rules
}

func verifyNow(r *http.Request, rules *Rules) error {
	a, err := Parse(r)
	if err != nil {
		return err
	}
	return NewVerifier(time.Now).Verify(r, a, testSecret, rules)
}

func TestAsymmetricSignaturesOfTheSDKAreVerified(t *testing.T) {
	r := signedBySDK(t, testSecret)
	if err := verifyNow(r, asymmetricRules()); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != `{"Value":"v"}` {
		t.Errorf("body %q, %v", body, err)
	}
}

func TestAsymmetricSignaturesThatAreWrongAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		secret string
		change func(*http.Request, *Rules)
		code   string
	}{
		"another secret":         {testSecret + "x", func(*http.Request, *Rules) {}, "InvalidSignatureException"},
		"another path":           {testSecret, func(r *http.Request, _ *Rules) { r.RequestURI += "x" }, "InvalidSignatureException"},
		"another condition":      {testSecret, func(r *http.Request, _ *Rules) { r.Header.Set("If-Match", "E2") }, "InvalidSignatureException"},
		"another set of Regions": {testSecret, func(r *http.Request, _ *Rules) { r.Header.Set(regionSetHeader, "us-east-1") }, "InvalidSignatureException"},
		"Regions of others":      {testSecret, func(r *http.Request, _ *Rules) { r.Header.Set(regionSetHeader, "eu-*, ap-south-1") }, "InvalidSignatureException"},
		"no Regions":             {testSecret, func(r *http.Request, _ *Rules) { r.Header.Del(regionSetHeader) }, "InvalidSignatureException"},
		"another service":        {testSecret, func(_ *http.Request, rules *Rules) { rules.Service = "lambda" }, "InvalidSignatureException"},
		"a service without":      {testSecret, func(_ *http.Request, rules *Rules) { rules.Asymmetric = false }, "IncompleteSignatureException"},
		"no hexadecimal": {testSecret, func(r *http.Request, _ *Rules) {
			r.Header["Authorization"][0] = strings.Replace(r.Header["Authorization"][0], "Signature=30", "Signature=3z", 1)
		}, "InvalidSignatureException"},
		"a long signature": {testSecret, func(r *http.Request, _ *Rules) { r.Header["Authorization"][0] += strings.Repeat("00", 100) }, "InvalidSignatureException"},
		"a Region in the scope": {testSecret, func(r *http.Request, _ *Rules) {
			r.Header["Authorization"][0] = strings.Replace(r.Header["Authorization"][0], "/cloudfront-", "/us-east-1/cloudfront-", 1)
		}, "IncompleteSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			r, rules := signedBySDK(t, tt.secret), asymmetricRules()
			tt.change(r, rules)
			wantCode(t, verifyNow(r, rules), RESTJSON, tt.code)
		})
	}
}

func TestASignatureWithTheSecretDoesNotPassForAnAsymmetricOne(t *testing.T) {
	r := signed(t, "GET", "http://localhost:9400/key-value-stores/a", http.Header{regionSetHeader: {"*"}}, nil, "cloudfront-keyvaluestore")
	r.Header["Authorization"][0] = strings.Replace(r.Header["Authorization"][0], algorithm, algorithmECDSA, 1)
	r.Header["Authorization"][0] = strings.Replace(r.Header["Authorization"][0], "/us-east-1/", "/", 1)
	wantCode(t, verify(r, asymmetricRules()), RESTJSON, "InvalidSignatureException")
}

// The pair is the one that AWS's SDKs are tested with.
func TestKeyPairsAreDerivedAsAWSDoes(t *testing.T) {
	key := derivePublicKey(credentialID{"AKISORANDOMAASORANDOM", "q+jcrXGc+0zWN6uzclKVhvMmUsIfRPa4rlRandom"})
	point, err := key.Bytes()
	const want = "04" + "15d242ceebf8d8169fd6a8b5a746c41140414c3b07579038da06af89190fffcb" + "0515242cedd82e94799482e4c0514b505afccf2c0c98d6a553bf539f424c5ec0"
	if err != nil || hex.EncodeToString(point) != want {
		t.Errorf("public key %x, %v", point, err)
	}
}

func TestNumbersThatAreNoPrivateKeyAreSkipped(t *testing.T) {
	order := elliptic.P256().Params().N
	for less, want := range map[int64]bool{1: false, 2: true, 3: true} {
		n := [sha256.Size]byte(orderLess(order.Bytes(), byte(less)))
		if got := addOne(&n); got != want {
			t.Errorf("order-%d: %v, want %v", less, got, want)
		}
	}
	top := [sha256.Size]byte(bytes.Repeat([]byte{0xff}, sha256.Size))
	if addOne(&top) {
		t.Error("what overflows was taken")
	}
	var zero [sha256.Size]byte
	if !addOne(&zero) || zero[31] != 1 {
		t.Errorf("zero became %x", zero)
	}
}

// orderLess subtracts from the order of P-256, whose last byte is large enough.
func orderLess(order []byte, n byte) []byte {
	order[len(order)-1] -= n
	return order
}

func TestSetsOfRegionsMayHaveStars(t *testing.T) {
	allowed := []string{"eu-central-1", "us-east-1"}
	for set, want := range map[string]bool{
		"*": true, "us-east-1": true, "us-*": true, "ap-south-1, us-*": true, "": false, "ap-*": false, "us-east-11": false, "[": false, "us-east-1,[": true,
	} {
		if covers(set, allowed) != want {
			t.Errorf("set %q: %v", set, !want)
		}
	}
}

func FuzzAsymmetricHeader(f *testing.F) {
	f.Add("Credential=AKIAIOSFODNN7EXAMPLE/20150830/cloudfront-keyvaluestore/aws4_request, SignedHeaders=host;x-amz-date;x-amz-region-set, Signature=3006020101020101", "*")
	f.Add("Credential=////,Signature=", "a*b?[")
	// A signature by another key is well formed.
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	signature, err := ecdsa.SignASN1(rand.Reader, other, sum[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Credential=AKIAIOSFODNN7EXAMPLE/20150830/cloudfront-keyvaluestore/aws4_request, SignedHeaders=host;x-amz-date;x-amz-region-set, Signature="+hex.EncodeToString(signature), "us-east-1")
	f.Fuzz(func(t *testing.T, authorization, regions string) {
		r := unsigned("", "")
		r.Header["Authorization"] = []string{algorithmECDSA + " " + authorization}
		r.Header["X-Amz-Date"] = []string{"20150830T123600Z"}
		r.Header[regionSetHeader] = []string{regions}
		if err := verify(r, asymmetricRules()); err == nil {
			t.Fatal("a forged signature was accepted")
		}
	})
}
