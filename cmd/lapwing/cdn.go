package main

import (
	"context"
	"strings"

	acmapi "lapwing.dev/lapwing/internal/aws/acm"
	cloudfrontapi "lapwing.dev/lapwing/internal/aws/cloudfront"
	keyvaluestoreapi "lapwing.dev/lapwing/internal/aws/keyvaluestore"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/service/acm"
	"lapwing.dev/lapwing/internal/service/cloudfront"
	"lapwing.dev/lapwing/internal/service/keyvaluestore"
)

// openCDN opens the services of the content delivery network. The Lambda service
// and the edge location must be there.
func (s *server) openCDN(ctx context.Context, buckets cloudfront.Buckets) error {
	account := s.credentials.AccountID()
	issuer, err := s.openACME()
	if err != nil {
		return err
	}
	if s.names, err = s.loadDNS(); err != nil {
		return err
	}
	zone := ""
	if s.names != nil {
		zone = strings.TrimSuffix(s.names.Zones[0], ".")
	}
	certificates, err := acm.New(ctx, acm.Options{
		Store: s.store, Records: s.edge.records, AccountID: account, Region: s.opts.region, Logger: s.log,
		Local: s.edge.authority.Issuer(), ACME: issuer, Zone: zone, Locations: s.locations.Load(),
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { certificates.Close(); return nil })
	stores := keyvalue.NewWriter(s.edge.stores)
	distributions, err := cloudfront.New(ctx, cloudfront.Options{
		Store: s.store, Records: s.edge.records, AccountID: account, Locations: s.locations.Load(), Functions: s.functions, Buckets: buckets,
		KeyValues: stores, Logger: s.log,
		Strict2023: s.opts.edge.quotas == quotas2023,
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { distributions.Close(); return nil })
	s.services = append(s.services, acmapi.NewService(certificates), cloudfrontapi.NewService(distributions),
		keyvaluestoreapi.NewService(keyvaluestore.New(stores, account)))
	return nil
}
