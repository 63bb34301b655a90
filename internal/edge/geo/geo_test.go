package geo

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func TestPlacesComeFromTheOperatorsFiles(t *testing.T) {
	dir := t.TempDir()
	writer, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-City", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	_, network, err := net.ParseCIDR("192.0.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Insert(network, mmdbtype.Map{
		"country":      mmdbtype.Map{"iso_code": mmdbtype.String("CH"), "names": mmdbtype.Map{"en": mmdbtype.String("Switzerland")}},
		"subdivisions": mmdbtype.Slice{mmdbtype.Map{"iso_code": mmdbtype.String("ZH"), "names": mmdbtype.Map{"en": mmdbtype.String("Zurich")}}},
		"city":         mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String("Zürich")}},
		"location":     mmdbtype.Map{"latitude": mmdbtype.Float64(47.36667), "longitude": mmdbtype.Float64(8.55), "time_zone": mmdbtype.String("Europe/Zurich")},
	}); err != nil {
		t.Fatal(err)
	}
	cities, networks := filepath.Join(dir, "city.mmdb"), filepath.Join(dir, "networks")
	file, err := os.Create(cities)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteTo(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(networks, []byte("# ours\n127.0.0.0/8 FR\n127.0.0.2/32 de # a host\n2001:db8::/32 JP\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(cities, networks)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for address, want := range map[string]string{"192.0.2.7": "CH", "127.0.0.1": "FR", "127.0.0.2": "DE", "::ffff:127.0.0.2": "DE", "2001:db8::1": "JP", "8.8.8.8": ""} {
		if got := d.Lookup(netip.MustParseAddr(address)).Country; got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	place := d.Lookup(netip.MustParseAddr("192.0.2.7"))
	v := &Viewer{Request: &http.Request{ProtoMajor: 2, Header: http.Header{}}, Client: netip.MustParseAddrPort("192.0.2.7:1234"), Place: &place}
	for name, want := range map[string]string{
		"Cloudfront-Viewer-Country": "CH", "Cloudfront-Viewer-Country-Name": "Switzerland", "Cloudfront-Viewer-Country-Region": "ZH",
		"Cloudfront-Viewer-City": "Z%C3%BCrich", "Cloudfront-Viewer-Latitude": "47.36667", "Cloudfront-Viewer-Longitude": "8.55000",
		"Cloudfront-Viewer-Time-Zone": "Europe/Zurich", "Cloudfront-Viewer-Address": "192.0.2.7:1234", "Cloudfront-Viewer-Http-Version": "2.0",
		"Cloudfront-Forwarded-Proto": "http", "Cloudfront-Viewer-Metro-Code": "", "Cloudfront-Viewer-Asn": "", "Cloudfront-Unknown": "",
	} {
		if got := v.Header(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	var none *Database
	if got := none.Lookup(netip.MustParseAddr("192.0.2.7")); got != (Place{}) {
		t.Errorf("without a database: %+v", got)
	}
}

func TestTablesThatCannotBeReadAreRefused(t *testing.T) {
	for _, text := range []string{"127.0.0.0/8", "127.0.0.0/8 France", "nowhere FR"} {
		name := filepath.Join(t.TempDir(), "networks")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(name); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestDevicesAreToldByTheirUserAgent(t *testing.T) {
	for agent, want := range map[string]Device{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120 Safari/537.36": {Desktop: true},
		"curl/8.5.0": {Desktop: true},
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148":     {Mobile: true, IOS: true},
		"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) Mobile/15E148":              {Tablet: true, IOS: true},
		"Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/120 Mobile Safari/537.36": {Mobile: true, Android: true},
		"Mozilla/5.0 (Linux; Android 14; SM-X910) Chrome/120 Safari/537.36":        {Tablet: true, Android: true},
		"Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36":              {SmartTV: true},
	} {
		if got := classify(agent); got != want {
			t.Errorf("%s: %+v", agent, got)
		}
	}
}
