package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// debianKeys are the public keys that sign Debian 13: of the archive, of the
// security archive, and of the stable release.
//
//go:embed keys/debian-13.asc
var debianKeys []byte

const (
	debianMirror   = "http://deb.debian.org/" // what it serves is signed
	debianCodename = "trixie"                 // Debian 13

	maxRelease  = 4 << 20
	maxPackages = 128 << 20
	maxDeb      = 128 << 20
)

// debianPackages make up the user land of an interpreter: its packages, the
// libraries that they need, and what a function starts as a subprocess now and
// then. Their needs among each other are checked when they are unpacked.
type debianPackages struct {
	interpreter string   // the package whose version is the interpreter's
	packages    []string // besides those that all have
	// prefix is where below the root the interpreter is, if not in usr.
	prefix string
	// finish completes the unpacked user land at dir.
	finish func(ctx context.Context, s spec, dir string) error
}

// debianCommon are the packages of every user land.
var debianCommon = []string{
	"libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libssl3t64", "libzstd1", "libtinfo6", "tzdata", "media-types",
	"bash", "dash", "coreutils", "libacl1", "libattr1", "libcap2", "libselinux1",
	"libpcre2-8-0", "libgmp10", "libsystemd0",
}

// debianInterpreters are the runtimes that Debian 13 has.
var debianInterpreters = map[string]debianPackages{
	"python3.13": {
		interpreter: "python3.13-minimal",
		packages: []string{
			"python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib",
			"libexpat1", "libbz2-1.0", "liblzma5", "libffi8", "libsqlite3-0", "libreadline8t64", "libncursesw6", "libdb5.3t64", "libuuid1",
			// The AWS SDK, which AWS's Python runtimes have, too.
			"python3-boto3", "python3-botocore", "python3-s3transfer", "python3-jmespath",
			"python3-dateutil", "python3-six", "python3-urllib3", "python3-certifi",
			"python3-requests", "python3-idna", "python3-chardet",
		},
		finish: func(ctx context.Context, s spec, dir string) error {
			// Debian does so when it installs the packages.
			in := interpreter{usr: filepath.Join(dir, "usr")}
			return compilePython(ctx, s, in, dir, "/", "usr/lib", s.language.executable(s))
		},
	},
	"ruby3.3": {
		interpreter: "ruby3.3",
		packages: []string{
			"ruby3.3", "libruby3.3", "rubygems-integration", "ruby-csv", "ruby-did-you-mean", "ruby-ruby2-keywords", "ruby-webrick", "rake",
			"libcrypt1", "libffi8", "libyaml-0-2",
		},
	},
	"java21": debianJava("21"),
	"java25": debianJava("25"),
}

func debianJava(release string) debianPackages {
	return debianPackages{
		interpreter: "openjdk-" + release + "-jre-headless",
		packages: []string{
			"openjdk-" + release + "-jre-headless",
			// For java.desktop without a screen: pictures and fonts.
			"libjpeg62-turbo", "liblcms2-2", "libharfbuzz0b", "libfreetype6", "libfontconfig1", "libpng16-16t64", "libgraphite2-3", "libglib2.0-0t64",
			"libbrotli1", "libbz2-1.0", "libexpat1", "libatomic1", "libgif7", "libasound2t64", "libpcsclite1",
		},
		prefix: "usr/lib/jvm/java-" + release + "-openjdk-" + runtime.GOARCH,
	}
}

// debian adds interpreters from Debian's packages. They need a newer C library
// than some hosts have, so that the whole user land comes along.
type debian struct {
	debianPackages
	mirror string
	arch   string
	keys   openpgp.EntityList
	now    func() time.Time
}

// newDebian returns nil for runtimes that Debian does not have.
func newDebian(s spec) (source, error) {
	packages, ok := debianInterpreters[s.id]
	if !ok {
		return nil, nil
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return nil, fmt.Errorf("no Debian packages are used on %s", runtime.GOARCH)
	}
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(debianKeys))
	if err != nil {
		return nil, fmt.Errorf("debian: keys: %w", err)
	}
	packages.packages = append(slices.Clone(debianCommon), packages.packages...)
	return debian{debianPackages: packages, mirror: aptMirror("/etc/apt"), arch: runtime.GOARCH, keys: keys, now: time.Now}, nil
}

// mirrorPattern finds a Debian mirror in apt's sources, old and new style.
var mirrorPattern = regexp.MustCompile(`(?m)^(?:URIs:|deb(?: \[[^]]*\])?)\s*(https?://\S+?/)debian/?(?:\s|$)`)

// aptMirror returns the mirror that apt is configured to use.
func aptMirror(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	for _, file := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // there need be none
		}
		if m := mirrorPattern.FindSubmatch(text); m != nil {
			return string(m[1])
		}
	}
	return debianMirror
}

func (d debian) source() string { return "Debian 13 packages" }

// add implements source.
func (d debian) add(ctx context.Context, f *fetcher, s spec, into func(version string, fill func(dir string) (manifest, error)) error) error {
	found := map[string]debPackage{}
	for _, a := range []struct{ archive, suite string }{
		{"debian", debianCodename},
		{"debian-security", debianCodename + "-security"},
	} {
		f.progress(Progress{Step: "look up Debian suite " + a.suite})
		if err := d.index(ctx, f, a.archive, a.suite, found); err != nil {
			return fmt.Errorf("debian: %s: %w", a.suite, err)
		}
	}
	for _, name := range d.packages {
		if _, ok := found[name]; !ok {
			return fmt.Errorf("debian: package %s is missing", name)
		}
	}
	packaged := found[d.interpreter].version
	return into(upstreamVersion(packaged), func(dir string) (manifest, error) {
		for _, name := range d.packages {
			p := found[name]
			a := artifact{name: name + " " + p.version, url: d.mirror + p.path, hash: sha256.New, sum: p.sum, size: min(p.size, maxDeb)}
			if err := f.file(ctx, dir, a, func(deb *os.File) error { return unpackDeb(deb, dir) }); err != nil {
				return manifest{}, fmt.Errorf("debian: %s: %w", name, err)
			}
		}
		if err := linkCertificates(dir); err != nil {
			return manifest{}, err
		}
		if d.finish != nil {
			f.progress(Progress{Step: "compile the standard library"})
			if err := d.finish(ctx, s, dir); err != nil {
				return manifest{}, err
			}
		}
		return manifest{Source: d.source() + " (" + d.interpreter + " " + packaged + ")", Layout: layoutUserland, Prefix: d.prefix}, nil
	})
}

// upstreamVersion returns an interpreter's own version, without what its
// packagers and builders added.
func upstreamVersion(packaged string) string {
	if i := strings.IndexAny(packaged, "-+~"); i >= 0 {
		return packaged[:i]
	}
	return packaged
}

// debPackage is what a package index says of a package.
type debPackage struct {
	version string
	path    string // below the mirror
	size    int64
	sum     []byte // SHA-256
}

// index adds the wanted packages of a suite to found, where they are newer.
func (d debian) index(ctx context.Context, f *fetcher, archive, suite string, found map[string]debPackage) error {
	base := d.mirror + archive + "/dists/" + suite + "/"
	signed, err := f.bytes(ctx, base+"InRelease", nil, maxRelease)
	if err != nil {
		return err
	}
	release, err := d.verify(signed, suite)
	if err != nil {
		return err
	}
	name := "main/binary-" + d.arch + "/Packages.xz"
	want, size, err := releaseFile(release, name)
	if err != nil {
		return err
	}
	// By digest, so that the mirror changing just now does no harm.
	url := base + filepath.Dir(name) + "/by-hash/SHA256/" + hex.EncodeToString(want)
	packed, err := f.bytes(ctx, url, nil, min(size, maxPackages))
	if err != nil {
		return err
	}
	if got := sha256.Sum256(packed); !bytes.Equal(got[:], want) {
		return fmt.Errorf("%s: the digest is %x, want %x", name, got, want)
	}
	z, err := decompress(name, bytes.NewReader(packed))
	if err != nil {
		return err
	}
	defer z.Close()
	return readPackages(io.LimitReader(z, 4*maxPackages), func(p debPackage, name string) {
		if old, ok := found[name]; slices.Contains(d.packages, name) && (!ok || compareDebVersions(p.version, old.version) > 0) {
			p.path = archive + "/" + p.path
			found[name] = p
		}
	})
}

// verify checks the signature of an InRelease file and that it is of the suite
// asked for and not out of date, and returns what was signed.
func (d debian) verify(signed []byte, suite string) ([]byte, error) {
	block, _ := clearsign.Decode(signed)
	if block == nil {
		return nil, errors.New("InRelease is not signed")
	}
	if _, err := block.VerifySignature(d.keys, nil); err != nil {
		return nil, fmt.Errorf("InRelease: %w", err)
	}
	fields := controlFields(string(block.Plaintext))
	if fields["Codename"] != suite {
		return nil, fmt.Errorf("InRelease is of %q", fields["Codename"])
	}
	if until := fields["Valid-Until"]; until != "" {
		t, err := time.Parse(time.RFC1123, until)
		if err != nil {
			return nil, fmt.Errorf("InRelease: Valid-Until: %w", err)
		}
		if d.now().After(t) {
			return nil, fmt.Errorf("InRelease was valid until %s: the mirror is out of date, or this host's clock is wrong", until)
		}
	}
	return block.Plaintext, nil
}

// releaseFile returns the SHA-256 and the size of a file that a release lists.
func releaseFile(release []byte, name string) ([]byte, int64, error) {
	_, list, ok := strings.Cut(string(release), "\nSHA256:")
	if !ok {
		return nil, 0, errors.New("InRelease has no SHA256 list")
	}
	for i, line := range strings.Split(list, "\n") {
		if i > 0 && !strings.HasPrefix(line, " ") {
			break // the next field
		}
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != name {
			continue
		}
		sum, err := hex.DecodeString(fields[0])
		if err != nil || len(sum) != sha256.Size {
			return nil, 0, fmt.Errorf("InRelease: digest of %s: %q", name, fields[0])
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || size < 0 {
			return nil, 0, fmt.Errorf("InRelease: size of %s: %q", name, fields[1])
		}
		return sum, size, nil
	}
	return nil, 0, fmt.Errorf("InRelease does not list %s", name)
}

// readPackages reads a package index.
func readPackages(r io.Reader, each func(p debPackage, name string)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var stanza strings.Builder
	flush := func() error {
		f := controlFields(stanza.String())
		stanza.Reset()
		if f["Package"] == "" {
			return nil
		}
		sum, err := hex.DecodeString(f["SHA256"])
		if err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("package %s: SHA256 %q", f["Package"], f["SHA256"])
		}
		size, err := strconv.ParseInt(f["Size"], 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("package %s: Size %q", f["Package"], f["Size"])
		}
		if path := f["Filename"]; !filepath.IsLocal(path) {
			return fmt.Errorf("package %s: Filename %q", f["Package"], path)
		}
		each(debPackage{version: f["Version"], path: f["Filename"], size: size, sum: sum}, f["Package"])
		return nil
	}
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			stanza.WriteString(line)
			stanza.WriteByte('\n')
		} else if err := flush(); err != nil {
			return err
		}
	}
	return errors.Join(lines.Err(), flush())
}

// controlFields returns the one-line fields of a control stanza.
func controlFields(stanza string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(stanza) {
		if name, value, ok := strings.Cut(line, ":"); ok && line[0] != ' ' {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

// debParts are the parts of a package that a runtime needs; copyright files
// are the licences that must go with it.
var debParts = regexp.MustCompile(`^(etc/java-|usr/(bin/|lib/|lib64/|share/zoneinfo/|share/rubygems-integration/|share/doc/[^/]+/copyright$))`)

func unpackDeb(deb io.Reader, dir string) error {
	u, err := newUnpacker(dir)
	if err != nil {
		return err
	}
	defer u.close()
	return debData(bufio.NewReaderSize(deb, 1<<20), func(name string, r io.Reader) error {
		tar, err := decompress(name, r)
		if err != nil {
			return err
		}
		defer tar.Close()
		return u.tar(tar, func(name string) string {
			// gconv holds hundreds of character sets that Python has itself.
			if !debParts.MatchString(name) || strings.Contains(name, "/gconv/") {
				return ""
			}
			// Debian's modules for every Python, where ours looks for them.
			if module, ok := strings.CutPrefix(name, "usr/lib/python3/dist-packages/"); ok {
				return "usr/lib/python3.13/site-packages/" + module
			}
			return name
		})
	})
}

// linkCertificates points OpenSSL to the certificates in /etc, as Debian's
// package openssl does.
func linkCertificates(dir string) error {
	ssl := filepath.Join(dir, "usr/lib/ssl")
	if err := os.MkdirAll(ssl, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.Symlink("/etc/ssl/certs", filepath.Join(ssl, "certs")),
		os.Symlink("/etc/ssl/certs/ca-certificates.crt", filepath.Join(ssl, "cert.pem")))
}
