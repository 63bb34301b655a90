package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// configVersion is the version of the file's format.
const configVersion = 1

// maxConfig bounds the file, in bytes.
const maxConfig = 8 << 20

// Config says where viewers go. Its file is the operator's to write:
//
//	{
//	  "version": 1,
//	  "zones": ["cdn.example.org"],
//	  "nameservers": ["ns1.example.org"],
//	  "ttlSeconds": 20,
//	  "locations": {
//	    "FRA56-P1": {"addresses": ["192.0.2.1", "2001:db8::1"], "weight": 2},
//	    "LHR61-P1": {"addresses": ["192.0.2.9"]}
//	  },
//	  "subnets": {"198.51.100.0/24": ["LHR61-P1", "FRA56-P1"]}
//	}
type Config struct {
	Version int `json:"version"`
	// Zones are what the server is authoritative for. A distribution is known in
	// them by its aliases, and by the first label of its domain name: d111abc.ZONE.
	Zones []string `json:"zones"`
	// Nameservers are the names of the zones' servers, the first of them primary.
	Nameservers []string `json:"nameservers"`
	TTLSeconds  uint32   `json:"ttlSeconds"` // 20 where absent
	// Locations are edge locations by name.
	Locations map[string]Location `json:"locations"`
	// Subnets say which locations are nearest to viewers, in order, by networks of
	// these; the longest prefix counts. Viewers of no subnet are spread over all
	// locations by weight.
	Subnets map[netip.Prefix][]string `json:"subnets"`
}

// Location is where an edge location is reached.
type Location struct {
	Addresses []netip.Addr `json:"addresses"`
	Weight    *float64     `json:"weight"` // 1 where absent; 0: only where Subnets say so
}

// defaultTTL is short: an answer is wrong when a location fails.
const defaultTTL = 20 * time.Second

// Load reads a Config.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxConfig)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse reads a Config from its JSON.
func Parse(b []byte) (*Config, error) {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	var c Config
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.TTLSeconds == 0 {
		c.TTLSeconds = uint32(defaultTTL / time.Second)
	}
	for i, z := range c.Zones {
		c.Zones[i] = canonical(z)
	}
	for i, n := range c.Nameservers {
		c.Nameservers[i] = canonical(n)
	}
	return &c, nil
}

func (c *Config) check() error {
	switch {
	case c.Version < 1 || c.Version > configVersion:
		return fmt.Errorf("version %d: want 1", c.Version)
	case len(c.Zones) == 0 || len(c.Nameservers) == 0 || len(c.Locations) == 0:
		return errors.New("zones, nameservers and locations need one entry each at least")
	}
	for _, name := range slices.Concat(c.Zones, c.Nameservers) {
		if !validName(canonical(name)) {
			return fmt.Errorf("%q is no domain name", name)
		}
	}
	weights := 0.0
	for name, l := range c.Locations {
		if len(l.Addresses) == 0 {
			return fmt.Errorf("location %s has no addresses", name)
		}
		if l.weight() < 0 {
			return fmt.Errorf("location %s has a weight below 0", name)
		}
		weights += l.weight()
	}
	if weights == 0 {
		return errors.New("no location has a weight: viewers of no subnet would have none")
	}
	for prefix, names := range c.Subnets {
		if prefix != prefix.Masked() {
			return fmt.Errorf("subnet %v: the network is %v", prefix, prefix.Masked())
		}
		for _, name := range names {
			if _, ok := c.Locations[name]; !ok {
				return fmt.Errorf("subnet %v: there is no location %q", prefix, name)
			}
		}
	}
	return nil
}

func (l Location) weight() float64 {
	if l.Weight == nil {
		return 1
	}
	return *l.Weight
}
