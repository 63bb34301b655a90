// Package geo knows of viewers what CloudFront's headers tell origins: where they
// are, by their address; what device they use, by their User-Agent; and how they
// are connected.
//
// Places come from files that the operator names: databases in MaxMind's format,
// or a table of networks and countries. Without one nobody's place is known.
package geo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Place is where an address is; fields that are not known are empty.
type Place struct {
	Country, CountryName string // ISO 3166-1 alpha-2, and its name
	Region, RegionName   string // ISO 3166-2, without the country, and its name
	City, Postal         string
	TimeZone             string // IANA's name
	Metro                string // in the US only
	Latitude, Longitude  float64
	Located              bool // there are Latitude and Longitude
	ASN                  uint
}

// Database finds places. A nil one knows none.
type Database struct {
	readers []*maxminddb.Reader
	table   map[netip.Prefix]string
	lengths []int // of the prefixes of table, longest first
}

// maxTable bounds the file of a table of networks, in bytes.
const maxTable = 16 << 20

// Open opens databases: files in MaxMind's format (their names end with .mmdb), of
// which each may know something else, such as cities and autonomous systems; and
// tables of lines "NETWORK COUNTRY", which come first.
func Open(files ...string) (*Database, error) {
	d := &Database{table: map[netip.Prefix]string{}}
	for _, name := range files {
		var err error
		if strings.HasSuffix(name, ".mmdb") {
			var r *maxminddb.Reader
			if r, err = maxminddb.Open(name); err == nil {
				d.readers = append(d.readers, r)
			}
		} else {
			err = d.read(name)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the database of places %s: %w", name, err), d.Close())
		}
	}
	return d, nil
}

// Close closes the files. Nobody may look anything up after it.
func (d *Database) Close() error {
	if d == nil {
		return nil
	}
	var errs []error
	for _, r := range d.readers {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

func (d *Database) read(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if info.Size() > maxTable {
		return fmt.Errorf("it has more than %d bytes", maxTable)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return d.parse(b)
}

// parse reads a table. "#" begins a comment.
func (d *Database) parse(b []byte) error {
	var seen [129]bool
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 || len(fields[1]) != 2 {
			return fmt.Errorf("line %d: want NETWORK COUNTRY, e.g. 192.0.2.0/24 CH", n)
		}
		p, err := netip.ParsePrefix(fields[0])
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		d.table[p.Masked()] = strings.ToUpper(fields[1])
		seen[p.Bits()] = true
	}
	for l := len(seen) - 1; l >= 0; l-- {
		if seen[l] {
			d.lengths = append(d.lengths, l)
		}
	}
	return lines.Err()
}

// record is what is read of MaxMind's databases of cities, countries and
// autonomous systems.
type record struct {
	Country struct {
		Code  string            `maxminddb:"iso_code"`
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"country"`
	Subdivisions []struct {
		Code  string            `maxminddb:"iso_code"`
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"subdivisions"`
	City struct {
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"city"`
	Postal struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"postal"`
	Location struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
		TimeZone  string   `maxminddb:"time_zone"`
		Metro     uint     `maxminddb:"metro_code"`
	} `maxminddb:"location"`
	ASN uint `maxminddb:"autonomous_system_number"`
}

// Lookup finds the place of an address. A damaged part of a database is as good as
// one that does not know.
func (d *Database) Lookup(a netip.Addr) Place {
	var p Place
	if d == nil || !a.IsValid() {
		return p
	}
	a = a.Unmap()
	for _, r := range d.readers {
		var found record
		if err := r.Lookup(a).Decode(&found); err == nil {
			p.merge(&found)
		}
	}
	for _, l := range d.lengths {
		if l > a.BitLen() {
			continue
		}
		prefix, err := a.Prefix(l)
		if err != nil {
			break
		}
		if country := d.table[prefix]; country != "" {
			if country != p.Country {
				p = Place{Country: country, ASN: p.ASN}
			}
			break
		}
	}
	return p
}

func (p *Place) merge(r *record) {
	const language = "en"
	take := func(to *string, from string) {
		if *to == "" {
			*to = from
		}
	}
	take(&p.Country, r.Country.Code)
	take(&p.CountryName, r.Country.Names[language])
	if len(r.Subdivisions) > 0 {
		take(&p.Region, r.Subdivisions[0].Code)
		take(&p.RegionName, r.Subdivisions[0].Names[language])
	}
	take(&p.City, r.City.Names[language])
	take(&p.Postal, r.Postal.Code)
	take(&p.TimeZone, r.Location.TimeZone)
	if r.Location.Metro != 0 {
		take(&p.Metro, fmt.Sprint(r.Location.Metro))
	}
	if r.Location.Latitude != nil && r.Location.Longitude != nil && !p.Located {
		p.Latitude, p.Longitude, p.Located = *r.Location.Latitude, *r.Location.Longitude, true
	}
	if p.ASN == 0 {
		p.ASN = r.ASN
	}
}
