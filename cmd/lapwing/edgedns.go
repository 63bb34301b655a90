package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"lapwing.dev/lapwing/internal/edge/dns"
)

// loadDNS reads what the DNS server is to answer; nil: the operator wants none.
func (s *server) loadDNS() (*dns.Config, error) {
	o := s.opts.locations
	if o.dns == "" {
		return nil, nil
	}
	config, err := dns.Load(o.dnsConfig)
	if err != nil {
		return nil, fmt.Errorf("--edge-dns-config: %w", err)
	}
	return config, nil
}

// serveDNS starts the DNS server that brings viewers to edge locations, where the
// operator wants one.
func (s *server) serveDNS() error {
	o := s.opts.locations
	if s.names == nil {
		return nil
	}
	udp, err := net.ListenPacket("udp", o.dns)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --edge-dns", err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		return errors.Join(fmt.Errorf("%w: choose another address with --edge-dns", err), udp.Close())
	}
	d := dns.New(dns.Options{
		Config: s.names, Distributions: s.edge.records.Distributions, Challenges: s.edge.records.Challenges,
		Healthy: s.locations.Load().Well, Region: s.regionOf, Logger: s.log,
	})
	s.run(func(ctx context.Context) error {
		return d.Serve(ctx, udp, tcp)
	})
	return nil
}

// regionOf is the AWS Region of a location, this one or one that has joined.
func (s *server) regionOf(location string) string {
	if location == s.location() {
		return s.region()
	}
	return s.locations.Load().Region(location)
}
