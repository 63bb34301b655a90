package geo

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/edge/clienthello"
)

// Viewer is who sends a request.
type Viewer struct {
	Request *http.Request
	Client  netip.AddrPort
	Place   *Place
	// Names returns the names of the request's header fields in the order in which they
	// came; nil: it is not known.
	Names func() []string
	// Hello is how the viewer began its TLS handshake; nil: it is not known.
	Hello *clienthello.Hello
}

// maxOrder bounds the header that tells the order of headers, in bytes ("Header
// order").
const maxOrder = 7680

// Header returns the value of a header that CloudFront makes, by its canonical
// name ("Cloudfront-Viewer-Country"), and nothing where it is not known ("Adding
// CloudFront request headers").
func (v *Viewer) Header(name string) string {
	device, found := strings.CutPrefix(name, "Cloudfront-Is-")
	if found {
		return v.device(device)
	}
	switch name {
	case "Cloudfront-Forwarded-Proto":
		if v.Request.TLS != nil {
			return "https"
		}
		return "http"
	case "Cloudfront-Viewer-Http-Version":
		return httpVersion(v.Request)
	case "Cloudfront-Viewer-Address":
		// IPv6 addresses have no brackets here.
		return v.Client.Addr().String() + ":" + strconv.Itoa(int(v.Client.Port()))
	case "Cloudfront-Viewer-Tls":
		return viewerTLS(v.Request.TLS)
	case "Cloudfront-Viewer-Ja3-Fingerprint":
		if v.Hello != nil {
			return v.Hello.JA3()
		}
		return ""
	case "Cloudfront-Viewer-Ja4-Fingerprint":
		if v.Hello != nil {
			return v.Hello.JA4()
		}
		return ""
	case "Cloudfront-Viewer-Header-Order":
		return v.order()
	case "Cloudfront-Viewer-Header-Count":
		n := 1 // Host
		for _, values := range v.Request.Header {
			n += len(values)
		}
		return strconv.Itoa(n)
	}
	return v.place(strings.TrimPrefix(name, "Cloudfront-Viewer-"))
}

// order is the names of the request's header fields, with colons between them.
func (v *Viewer) order() string {
	if v.Names == nil {
		return ""
	}
	var b strings.Builder
	for i, name := range v.Names() {
		if b.Len()+1+len(name) > maxOrder {
			break
		}
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(name)
	}
	return b.String()
}

func httpVersion(r *http.Request) string {
	if r.ProtoMajor >= 2 {
		return strconv.Itoa(r.ProtoMajor) + ".0"
	}
	return "1." + strconv.Itoa(r.ProtoMinor)
}

func (v *Viewer) place(name string) string {
	p := v.Place
	switch name {
	case "Country":
		return p.Country
	case "Country-Name":
		return escape(p.CountryName)
	case "Country-Region":
		return p.Region
	case "Country-Region-Name":
		return escape(p.RegionName)
	case "City":
		return escape(p.City)
	case "Postal-Code":
		return escape(p.Postal)
	case "Time-Zone":
		return p.TimeZone
	case "Metro-Code":
		return p.Metro
	case "Asn":
		if p.ASN != 0 {
			return strconv.FormatUint(uint64(p.ASN), 10)
		}
	case "Latitude", "Longitude":
		if p.Located {
			f := p.Latitude
			if name == "Longitude" {
				f = p.Longitude
			}
			return strconv.FormatFloat(f, 'f', 5, 64)
		}
	}
	return ""
}

// escape percent-encodes what is not ASCII.
func escape(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return strings.ReplaceAll(url.PathEscape(s), "%20", " ")
		}
	}
	return s
}

// viewerTLS is version:cipher:handshake. A connection that has served before is
// not told from one that is new.
func viewerTLS(s *tls.ConnectionState) string {
	if s == nil {
		return ""
	}
	handshake := "fullHandshake"
	if s.DidResume {
		handshake = "sessionResumed"
	}
	return TLSVersion(s.Version) + ":" + tls.CipherSuiteName(s.CipherSuite) + ":" + handshake
}

// TLSVersion is the name of a version of TLS, as AWS writes it: TLSv1.3.
func TLSVersion(v uint16) string { return strings.Replace(tls.VersionName(v), "TLS ", "TLSv", 1) }

// device tells "true" or "false" of a kind of device.
func (v *Viewer) device(kind string) string {
	d := classify(v.Request.UserAgent())
	is := false
	switch kind {
	case "Desktop-Viewer":
		is = d.Desktop
	case "Mobile-Viewer":
		is = d.Mobile
	case "Tablet-Viewer":
		is = d.Tablet
	case "Smarttv-Viewer":
		is = d.SmartTV
	case "Android-Viewer":
		is = d.Android
	case "Ios-Viewer":
		is = d.IOS
	default:
		return ""
	}
	return strconv.FormatBool(is)
}

// Device is what kinds of device a viewer uses; more than one may be true.
type Device struct{ Desktop, Mobile, Tablet, SmartTV, Android, IOS bool }

// The words of User-Agent headers that tell devices.
var (
	tvWords     = []string{"smart-tv", "smarttv", "appletv", "apple tv", "googletv", "google tv", "hbbtv", "bravia", "netcast", "web0s", "webos.tv", "roku", "crkey", "aftt", "aftb", "aftm", "viera"}
	tabletWords = []string{"ipad", "tablet", "kindle", "silk/", "playbook"}
	mobileWords = []string{"iphone", "ipod", "mobile", "blackberry", "opera mini", "windows phone", "webos/"}
)

// classify tells the device from a User-Agent header. One that is none of the
// others is a desktop.
func classify(userAgent string) Device {
	ua := strings.ToLower(userAgent)
	has := func(words []string) bool {
		for _, w := range words {
			if strings.Contains(ua, w) {
				return true
			}
		}
		return false
	}
	d := Device{
		Android: strings.Contains(ua, "android"),
		IOS:     strings.Contains(ua, "iphone") || strings.Contains(ua, "ipad") || strings.Contains(ua, "ipod"),
	}
	switch {
	case has(tvWords):
		d.SmartTV = true
	case has(tabletWords), d.Android && !strings.Contains(ua, "mobile"):
		d.Tablet = true
	case has(mobileWords), d.Android:
		d.Mobile = true
	default:
		d.Desktop = true
	}
	return d
}
