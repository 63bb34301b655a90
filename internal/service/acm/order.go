package acm

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/acme"
	api "lapwing.dev/lapwing/internal/aws/acm"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// When an ACME authority is asked. It counts what fails, five validations of a name
// an hour at the one that most have, so nothing is ordered before names were seen to
// lead here, unless that is seen from elsewhere only.
const (
	// validationTime is how long names may take to lead here (ACM user guide).
	validationTime = 72 * time.Hour
	// firstLook is the wait after the first look, which doubles up to lastLook.
	firstLook = 2 * time.Second
	lastLook  = 5 * time.Minute
	// unseen is how often the authority is asked though names do not seem to lead here.
	unseen = 20 * time.Minute
	// refusedRetry is the wait after an order that nothing came of, and failedRetry
	// that after any other failure; they double up to lastRetry. limitedRetry is the
	// least where the authority takes no more.
	refusedRetry = 5 * time.Minute
	failedRetry  = 10 * time.Second
	limitedRetry = time.Hour
	lastRetry    = 12 * time.Hour
	// presentTime bounds the wait for edge locations to have an answer.
	presentTime = 30 * time.Second
	presentLook = 20 * time.Millisecond
	// stepTime bounds a step of an order.
	stepTime = 10 * time.Minute
)

// advanceOrder takes a certificate of the ACME authority as far as it goes now.
func (s *Service) advanceOrder(ctx context.Context, c *record) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	i := new(issue)
	if known := c.Request.Issue; known != nil {
		*i = *known // which others read
	} else {
		var err error
		if i, err = newIssue(c.Request, s.opts.Now().UTC()); err != nil {
			return err
		}
		if err := s.keep(ctx, c.ARN, i, api.RenewalStatusPendingAutoRenewal, ""); err != nil {
			return err
		}
	}
	if c.Certificate == "" && s.opts.Now().Sub(i.Began) > validationTime {
		return s.giveUp(ctx, c.ARN, api.CertificateStatusValidationTimedOut, "")
	}
	if err := s.present(ctx, c, nil); err != nil {
		return s.later(ctx, c, i, err)
	}
	if i.Order == "" {
		if ready := s.look(ctx, c, i); !ready {
			return s.keep(ctx, c.ARN, i, api.RenewalStatusPendingValidation, "")
		}
		i.Asked = s.opts.Now().UTC()
		order, err := s.opts.ACME.Order(ctx, c.Request.Names)
		if err != nil {
			return s.later(ctx, c, i, err)
		}
		i.Order = order
		if err := s.keep(ctx, c.ARN, i, api.RenewalStatusPendingAutoRenewal, ""); err != nil {
			return err
		}
	}
	return s.finish(ctx, c, i)
}

// finish takes an order to its certificate.
func (s *Service) finish(ctx context.Context, c *record, i *issue) error {
	key, err := parseKey(i.Key)
	if err != nil {
		return err
	}
	made, err := s.opts.ACME.Finish(ctx, i.Order, c.Request.Names, key, acme.Proof{
		Methods: i.Methods, Present: func(ctx context.Context, answers []acme.Answer) error { return s.present(ctx, c, answers) },
	})
	if err != nil {
		if errors.Is(err, acme.ErrOver) {
			i.Order = ""
		}
		return s.later(ctx, c, i, err)
	}
	leaf, chain, err := split(made.Chain, key)
	if err != nil {
		i.Order = ""
		return s.later(ctx, c, i, fmt.Errorf("the certificate that was issued: %w", err))
	}
	s.opts.Logger.Info("a certificate was issued", "certificate", c.ARN, "names", c.Request.Names, "until", leaf.NotAfter)
	renew := renewAt(leaf)
	if earliest := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3); made.Renew.After(earliest) && made.Renew.Before(leaf.NotAfter) {
		renew = made.Renew // and not at once, again and again, whatever it says
	}
	return s.store(ctx, c.ARN, &issued{certificate: certificatePEM(leaf.Raw), chain: chain, key: i.Key, renew: renew})
}

// split parts a chain as authorities send it.
func split(document string, key crypto.Signer) (leaf *x509.Certificate, chain string, err error) {
	all, err := parseCertificates(document)
	if err != nil {
		return nil, "", err
	}
	if len(all) == 0 {
		return nil, "", errors.New("there is no certificate")
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(all[0].PublicKey) {
		return nil, "", errors.New("it is not for our key")
	}
	var b strings.Builder
	for _, issuer := range all[1:] {
		b.WriteString(certificatePEM(issuer.Raw))
	}
	return all[0], b.String(), nil
}

// keep writes how far an issue is and, of a renewal, what the API says of it.
func (s *Service) keep(ctx context.Context, arn string, i *issue, status api.RenewalStatus, reason api.FailureReason) error {
	now := s.opts.Now().UTC()
	_, err := s.certificates.Modify(ctx, arn, func(c *record) error {
		c.Request.Issue = i
		if c.Certificate != "" {
			c.Request.Renewal = &renewal{Status: status, Reason: reason, At: now}
		}
		return nil
	})
	return err
}

// giveUp ends a first issue.
func (s *Service) giveUp(ctx context.Context, arn string, status api.CertificateStatus, reason api.FailureReason) error {
	_, err := s.certificates.Modify(ctx, arn, func(c *record) error {
		c.Request.Issue, c.Request.Status, c.Request.Failure = nil, status, reason
		return nil
	})
	if err != nil {
		return err
	}
	return s.withdraw(ctx, arn)
}

// look tells whether to order now, and by which methods names are proven then.
func (s *Service) look(ctx context.Context, c *record, i *issue) bool {
	names := c.Request.Names
	found := make([]string, len(names))
	var all sync.WaitGroup
	for at, name := range names {
		all.Go(func() { found[at] = s.opts.ACME.Look(ctx, name, probe(c.ARN)) })
	}
	all.Wait()
	now := s.opts.Now().UTC()
	last := i.Began
	if i.Asked.After(last) {
		last = i.Asked
	}
	methods := map[string]string{}
	for at, name := range names {
		switch {
		case found[at] != "":
			methods[name] = found[at]
		case now.Sub(last) < unseen:
			i.Next = now.Add(backOff(firstLook, lastLook, i.Looks))
			i.Looks++
			return false
		case strings.HasPrefix(name, "*."):
			methods[name] = acme.DNS01
		case i.Failures%2 == 1: // by turns: nobody knows which of the two gets through
			methods[name] = acme.ALPN01
		default:
			methods[name] = acme.HTTP01
		}
	}
	i.Methods = methods
	return true
}

// later has an issue tried again after a while, or given up where that is no use.
func (s *Service) later(ctx context.Context, c *record, i *issue, cause error) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return err // we are stopping: the next start goes on
	}
	first, reason := verdict(cause)
	wait := backOff(first, lastRetry, i.Failures)
	s.opts.Logger.Warn("a certificate was not issued", "certificate", c.ARN, "names", c.Request.Names, "again", wait, "error", cause)
	// What was under way may have run out of time; what came of it is kept all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), presentTime)
	defer cancel()
	if reason != "" && c.Certificate == "" {
		return s.giveUp(ctx, c.ARN, api.CertificateStatusFailed, reason)
	}
	i.Failures, i.Looks = i.Failures+1, 0
	i.Next = s.opts.Now().UTC().Add(wait)
	status := api.RenewalStatusPendingAutoRenewal
	if reason != "" {
		status = api.RenewalStatusFailed
	}
	return s.keep(ctx, c.ARN, i, status, reason)
}

// verdict tells how long to wait after a first failure, and what the API calls one
// that trying again does not mend.
func verdict(cause error) (wait time.Duration, reason api.FailureReason) {
	switch acme.ReasonOf(cause) {
	case acme.RateLimited:
		return limitedRetry, ""
	case acme.Denied:
		return lastRetry, api.FailureReasonDomainNotAllowed
	case acme.CAA:
		return lastRetry, api.FailureReasonCaaError
	}
	if errors.Is(cause, acme.ErrOver) {
		return refusedRetry, ""
	}
	return failedRetry, ""
}

// backOff is a wait that doubles from first to last, with up to a tenth more.
func backOff(first, last time.Duration, times int) time.Duration {
	d := first
	for range times {
		if d *= 2; d >= last {
			break
		}
	}
	d = min(d, last)
	return d + rand.N(d/10)
}

// probe is what Look looks for: a token, and its own content.
func probe(arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return "lapwing-" + hex.EncodeToString(sum[:16])
}

// present has answers to an authority's challenges given, and the probe, and returns
// when every edge location gives them.
func (s *Service) present(ctx context.Context, c *record, answers []acme.Answer) error {
	p := probe(c.ARN)
	v := distribution.Challenge{Format: distribution.Format, ARN: c.ARN, HTTP: map[string]string{p: p}, TLS: map[string]string{}, TXT: map[string][]string{}}
	add := func(base, value string) {
		for _, name := range []string{challengeName(base), s.delegated(base)} {
			if !slices.Contains(v.TXT[name], value) {
				v.TXT[name] = append(v.TXT[name], value)
			}
		}
	}
	for _, name := range c.Request.Names {
		add(strings.TrimPrefix(name, "*."), p)
	}
	for _, a := range answers {
		switch a.Method {
		case acme.DNS01:
			add(a.Name, a.Value)
		case acme.ALPN01:
			v.TLS[strings.ToLower(a.Name)] = a.Value
		default:
			v.HTTP[a.Token] = a.Value
		}
	}
	now, ok := s.edge.Challenges.Get(c.ARN)
	if !ok || !reflect.DeepEqual(now.Value, v) {
		var err error
		if now, err = s.edge.Challenges.Put(ctx, c.ARN, v); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, presentTime)
	defer cancel()
	for s.opts.Locations.Applied().Challenges < now.Revision {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not every edge location has the answers to the authority's challenges: %w", ctx.Err())
		case <-time.After(presentLook):
		}
	}
	return nil
}

// withdraw has the answers for a certificate given no more.
func (s *Service) withdraw(ctx context.Context, arn string) error {
	c, ok := s.edge.Challenges.Get(arn)
	if !ok {
		return nil
	}
	return s.edge.Challenges.Delete(ctx, arn, c.Revision)
}
