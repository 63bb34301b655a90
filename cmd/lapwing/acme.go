package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/pflag"

	"lapwing.dev/lapwing/internal/acme"
	"lapwing.dev/lapwing/internal/service/acm"
)

// acmeKeyFile is where the key of the ACME account is, below the data directory.
const acmeKeyFile = "acme/account.pem"

// acmeOptions are the flags of `lapwing up` that are about the authority that issues
// the certificates that are requested of ACM.
type acmeOptions struct {
	directory, email, binding, ca, resolver string
	agree                                   bool
}

func (o *acmeOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.directory, "acme", "", "`URL` of the directory of an ACME authority that issues the certificates that are requested of ACM, e.g. https://acme-v02.api.letsencrypt.org/directory (default: Lapwing's own authority does)")
	f.BoolVar(&o.agree, "acme-agree-terms", false, "agree to the terms of service of the ACME authority")
	f.StringVar(&o.email, "acme-email", "", "`ADDRESS` that the ACME authority may write to")
	f.StringVar(&o.binding, "acme-binding", "", "`FILE` with the key id and the key that an ACME authority gave for an external account binding, with white space between them")
	f.StringVar(&o.ca, "acme-ca", "", "`FILE` with certificates of further authorities that the ACME authority's own server may be certified by")
	f.StringVar(&o.resolver, "acme-resolver", "", "`HOST:PORT` of the DNS server that says whether names lead here, before the ACME authority is asked (default: the system's)")
}

func (o *acmeOptions) check(up *upOptions) error {
	switch {
	case o.directory == "":
		if o.agree || o.email != "" || o.binding != "" || o.ca != "" || o.resolver != "" {
			return usageError{errors.New("--acme-agree-terms, --acme-email, --acme-binding, --acme-ca and --acme-resolver are for --acme")}
		}
		return nil
	case up.node.roles == roleEdge:
		return usageError{errors.New("--acme is for the Lapwing that edge locations join, not for them")}
	case !o.agree:
		return usageError{errors.New("--acme: an authority issues nothing to who does not agree to its terms of service: read them, and add --acme-agree-terms")}
	case up.edge.http == "" && up.edge.https == "" && up.locations.dns == "" && up.locations.join == "":
		return usageError{errors.New("--acme: the authority looks for proof at ports 80 and 443 of names, or by DNS: it needs --edge-http, --edge-https or --edge-dns")}
	}
	if _, _, err := net.SplitHostPort(o.resolver); o.resolver != "" && err != nil {
		return usageError{fmt.Errorf("--acme-resolver %q: want HOST:PORT, e.g. 192.0.2.53:53", o.resolver)}
	}
	return nil
}

// openACME returns the authority that issues certificates; nil: Lapwing's own does.
func (s *server) openACME() (acm.ACME, error) {
	o := s.opts.acme
	if o.directory == "" {
		return nil, nil
	}
	roots, err := authorities("--acme-ca", o.ca)
	if err != nil {
		return nil, err
	}
	var binding *acme.Binding
	if o.binding != "" {
		if binding, err = acme.ReadBinding(o.binding); err != nil {
			return nil, fmt.Errorf("--acme-binding: %w", err)
		}
	}
	return acme.New(acme.Options{
		Directory: o.directory, KeyFile: filepath.Join(s.opts.data, acmeKeyFile), AgreeToTerms: o.agree, Email: o.email,
		Binding: binding, Roots: roots, Resolver: o.resolver,
	})
}
