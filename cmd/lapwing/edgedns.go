package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"lapwing.dev/lapwing/internal/edge/dns"
)

// serveDNS starts the DNS server that brings viewers to edge locations, where the
// operator wants one.
func (s *server) serveDNS() error {
	o := s.opts.locations
	if o.dns == "" {
		return nil
	}
	config, err := dns.Load(o.dnsConfig)
	if err != nil {
		return fmt.Errorf("--edge-dns-config: %w", err)
	}
	udp, err := net.ListenPacket("udp", o.dns)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --edge-dns", err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		return errors.Join(fmt.Errorf("%w: choose another address with --edge-dns", err), udp.Close())
	}
	d := dns.New(dns.Options{Config: config, Distributions: s.edge.records.Distributions, Healthy: s.locations.Load().Well, Logger: s.log})
	s.run(func(ctx context.Context) error {
		return d.Serve(ctx, udp, tcp)
	})
	return nil
}
