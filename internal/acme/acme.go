// Package acme has certificates issued by an ACME authority (RFC 8555).
//
// A Client has an account, whose key is in a file. An order is named by the URL
// that the authority gave it: all else of it the authority knows, so that an order
// whose URL is kept goes on after a restart where it was. The protocol itself is
// acmez's.
//
// Authorities count what fails. So a Client can look for itself, the way that the
// authority will, whether a name leads here (Look), before anything is ordered.
package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"lapwing.dev/lapwing/internal/authority"
)

// Methods of proving that a name leads here.
const (
	HTTP01 = acme.ChallengeTypeHTTP01
	DNS01  = acme.ChallengeTypeDNS01
	ALPN01 = acme.ChallengeTypeTLSALPN01
)

const (
	// callTimeout bounds a call of the authority, pollTimeout how long it may take to
	// validate a name, or to issue.
	callTimeout = 30 * time.Second
	pollTimeout = 3 * time.Minute
	// maxAnswer bounds what an authority answers, in bytes.
	maxAnswer = 1 << 20
)

// Options configures a Client. All fields above the blank line are required.
type Options struct {
	// Directory is the URL of the authority's directory; https only.
	Directory string
	// KeyFile is where the account's key is kept.
	KeyFile string
	// AgreeToTerms says that the operator agrees to the authority's terms of service.
	AgreeToTerms bool

	Email string // that the authority may write to
	// Binding is the account with the authority that the ACME account belongs to; nil:
	// none.
	Binding *Binding
	// Roots certify the authority's own server; nil: those of the system.
	Roots *x509.CertPool
	// Resolver is the HOST:PORT of the DNS server that Look asks; empty: the system's.
	Resolver string
	// HTTPPort and HTTPSPort are where Look finds resources; 80 and 443 where 0, as for
	// authorities.
	HTTPPort, HTTPSPort int
}

// Binding is an external account binding (RFC 8555, 7.3.4). Key is a secret.
type Binding struct {
	ID  string
	Key string // base64url, without padding
}

// ReadBinding reads a file with a binding: its id and its key, with white space
// between them.
func ReadBinding(path string) (*Binding, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b))
	if len(fields) != 2 {
		return nil, fmt.Errorf("%s: want a key id and a key, with white space between them", path)
	}
	key := strings.TrimRight(fields[1], "=")
	if _, err := base64.RawURLEncoding.DecodeString(key); err != nil {
		return nil, fmt.Errorf("%s: the key is not base64url", path) // and not shown
	}
	return &Binding{fields[0], key}, nil
}

// Client has an account with an authority. It is safe for concurrent use.
type Client struct {
	opts  Options
	acme  *acme.Client
	looks *looks

	mu      sync.Mutex
	account *acme.Account // nil until the authority has told it
	key     crypto.Signer
}

// New returns a Client. It makes the account's key where there is none; what it asks
// of the authority comes later.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("acme: %q is not the https URL of an authority's directory", o.Directory)
	}
	if !o.AgreeToTerms {
		return nil, errors.New("acme: authorities issue nothing to who does not agree to their terms of service")
	}
	key, err := authority.Key(o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("acme: the key of the account: %w", err)
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
		DialContext: (&net.Dialer{Timeout: callTimeout}).DialContext, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 2,
	}
	return &Client{opts: o, key: key, looks: newLooks(o), acme: &acme.Client{
		Directory: o.Directory, UserAgent: "Lapwing", PollTimeout: pollTimeout,
		HTTPClient: &http.Client{Timeout: callTimeout, Transport: bounded{transport}},
	}}, nil
}

// bounded breaks off answers that are too long.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{http.MaxBytesReader(nil, res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// ready returns the account, which the authority has or makes.
func (c *Client) ready(ctx context.Context) (acme.Account, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.account != nil {
		return *c.account, nil
	}
	asked := acme.Account{PrivateKey: c.key, TermsOfServiceAgreed: c.opts.AgreeToTerms}
	made, err := c.acme.GetAccount(ctx, asked)
	if problem(err, acme.ProblemTypeAccountDoesNotExist) {
		if c.opts.Email != "" {
			asked.Contact = []string{"mailto:" + c.opts.Email}
		}
		if b := c.opts.Binding; b != nil {
			if err := asked.SetExternalAccountBinding(ctx, c.acme, acme.EAB{KeyID: b.ID, MACKey: b.Key}); err != nil {
				return acme.Account{}, fmt.Errorf("acme: the external account binding: %w", err)
			}
		}
		made, err = c.acme.NewAccount(ctx, asked)
	}
	if err != nil {
		return acme.Account{}, fmt.Errorf("acme: the account: %w", err)
	}
	c.account = &made
	return made, nil
}

// Order asks for a certificate and returns the order's URL.
func (c *Client) Order(ctx context.Context, names []string) (string, error) {
	account, err := c.ready(ctx)
	if err != nil {
		return "", err
	}
	o := acme.Order{}
	for _, name := range names {
		o.Identifiers = append(o.Identifiers, acme.Identifier{Type: "dns", Value: name})
	}
	if o, err = c.acme.NewOrder(ctx, account, o); err != nil {
		return "", c.failed("order a certificate", err)
	}
	return o.Location, nil
}

// Answer is what an authority looks for: with HTTP01 at
// http://NAME/.well-known/acme-challenge/TOKEN, with DNS01 in a TXT record of
// _acme-challenge.NAME, with ALPN01 in a certificate that is shown for the name
// (ProofCertificate).
type Answer struct {
	Name   string // without a leading "*."
	Method string
	Token  string // HTTP01 only
	Value  string // of the resource, or of the record; what the certificate is made of
}

// Issued is a certificate as an authority has issued it.
type Issued struct {
	Chain string // PEM, the certificate itself first
	// Renew is when the authority wishes it to be renewed; zero: it does not say.
	Renew time.Time
}

// Proof is how a caller of Finish proves that names lead here.
type Proof struct {
	// Methods are by names as they were ordered.
	Methods map[string]string
	// Present has answers given. It returns when an authority would find them,
	// whichever way it comes.
	Present func(context.Context, []Answer) error
}

// Finish takes an order to its certificate, for a key, from wherever it is. ErrOver
// says that nothing comes of the order any more, because of what it wraps.
func (c *Client) Finish(ctx context.Context, order string, names []string, key crypto.Signer, p Proof) (Issued, error) {
	account, err := c.ready(ctx)
	if err != nil {
		return Issued{}, err
	}
	o, err := c.acme.GetOrder(ctx, account, acme.Order{Location: order})
	if err != nil {
		return Issued{}, c.failed("look for the order", err)
	}
	if o.Status == acme.StatusPending {
		if err := c.prove(ctx, account, o, p); err != nil {
			return Issued{}, err
		}
		if o, err = c.acme.GetOrder(ctx, account, o); err != nil {
			return Issued{}, c.failed("look for the order", err)
		}
	}
	if o.Status == acme.StatusInvalid {
		return Issued{}, &over{fmt.Errorf("the order is invalid: %w", because(o.Error))}
	}
	if o.Status != acme.StatusValid {
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
		if err != nil {
			return Issued{}, fmt.Errorf("acme: the certificate request: %w", err)
		}
		if o, err = c.acme.FinalizeOrder(ctx, account, o, csr); err != nil {
			if o.Status == acme.StatusInvalid {
				return Issued{}, &over{c.failed("finalize the order", err)}
			}
			return Issued{}, c.failed("finalize the order", err)
		}
	}
	chains, err := c.acme.GetCertificateChain(ctx, account, o.Certificate)
	if err != nil {
		return Issued{}, c.failed("fetch the certificate", err)
	}
	issued := Issued{Chain: string(chains[0].ChainPEM)}
	if i := chains[0].RenewalInfo; i != nil {
		issued.Renew = i.SelectedTime
	}
	return issued, nil
}

// prove has the authority validate all names of an order that it has not yet.
func (c *Client) prove(ctx context.Context, account acme.Account, o acme.Order, p Proof) error {
	var pending []acme.Authorization
	var challenges []acme.Challenge
	var answers []Answer
	for _, url := range o.Authorizations {
		a, err := c.acme.GetAuthorization(ctx, account, url)
		if err != nil {
			return c.failed("look for an authorization", err)
		}
		if a.Status != acme.StatusPending {
			continue // valid, or the order is not pending for long
		}
		name := a.IdentifierValue()
		challenge, ok := offered(a, p.Methods[name])
		if !ok {
			return &over{fmt.Errorf("acme: the authority does not take proof of %s by %s", name, p.Methods[name])}
		}
		pending, challenges, answers = append(pending, a), append(challenges, challenge), append(answers, answer(a.Identifier.Value, challenge))
	}
	if err := p.Present(ctx, answers); err != nil {
		return fmt.Errorf("acme: the answers to challenges: %w", err)
	}
	for _, challenge := range challenges {
		if challenge.Status != acme.StatusPending {
			continue // begun before a restart
		}
		if _, err := c.acme.InitiateChallenge(ctx, account, challenge); err != nil {
			return c.failed("begin the validation of "+challenge.Identifier.Value, err)
		}
	}
	for _, a := range pending {
		if a, err := c.acme.PollAuthorization(ctx, account, a); err != nil {
			err = c.failed("the validation of "+a.IdentifierValue(), err)
			if a.Status == acme.StatusPending || a.Status == "" {
				return err
			}
			return &over{err}
		}
	}
	return nil
}

func offered(a acme.Authorization, method string) (acme.Challenge, bool) {
	for _, c := range a.Challenges {
		if c.Type == method {
			return c, true
		}
	}
	return acme.Challenge{}, false
}

func answer(name string, c acme.Challenge) Answer {
	a := Answer{Name: name, Method: c.Type, Token: c.Token, Value: c.KeyAuthorization}
	switch c.Type {
	case DNS01:
		a.Token, a.Value = "", c.DNS01KeyAuthorization()
	case ALPN01:
		a.Token = ""
	}
	return a
}

// failed says what failed. An account that the authority does not know any more is
// looked for anew.
func (c *Client) failed(what string, err error) error {
	if problem(err, acme.ProblemTypeAccountDoesNotExist) {
		c.mu.Lock()
		c.account = nil
		c.mu.Unlock()
	}
	err = fmt.Errorf("acme: %s: %w", what, err)
	if p, ok := errors.AsType[acme.Problem](err); ok && p.Status == http.StatusNotFound {
		return &over{err}
	}
	return err
}
