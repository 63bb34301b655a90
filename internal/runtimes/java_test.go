package runtimes

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mavenSettings makes a home whose Maven uses a mirror.
func mavenSettings(t *testing.T, of, url string) (home string) {
	t.Helper()
	home = t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".m2"), 0o755); err != nil {
		t.Fatal(err)
	}
	settings := "<settings><mirrors><mirror><mirrorOf>" + of + "</mirrorOf><url>" + url + "</url></mirror></mirrors></settings>"
	if err := os.WriteFile(filepath.Join(home, ".m2/settings.xml"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	return home
}

func TestMavensMirrorIsUsed(t *testing.T) {
	for of, want := range map[string]string{
		"central": "http://mirror.example.com/m/", "*": "http://mirror.example.com/m/", "external:*": "http://mirror.example.com/m/",
		"other": mavenCentral, "other,central": "http://mirror.example.com/m/",
	} {
		if got := mavenRepository(mavenSettings(t, of, "http://mirror.example.com/m")); got != want {
			t.Errorf("mirror of %s: %s", of, got)
		}
	}
	if got := mavenRepository(t.TempDir()); got != mavenCentral {
		t.Errorf("without settings: %s", got)
	}
}

// A jar that is not the one whose digest is known here is never kept.
func TestAnotherJarIsRefused(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.Write([]byte("another jar"))
	}))
	t.Cleanup(server.Close)
	r := openTest(t)
	r.home = mavenSettings(t, "central", server.URL)
	err := javaVM{}.add(context.Background(), r, newFetcher(nil))
	if err == nil || !strings.Contains(err.Error(), "the download is not what the registry announced") {
		t.Errorf("error %v", err)
	}
	if asked != "/com/amazonaws/aws-lambda-java-core/1.4.0/aws-lambda-java-core-1.4.0.jar" {
		t.Errorf("asked for %s", asked)
	}
	if (javaVM{}).missing(r, mustLookup(t, "java21")) == "" {
		t.Error("the client is there")
	}
}

func TestJavaCommandFitsTheHeapAndNamesTheHandler(t *testing.T) {
	s := mustLookup(t, "java21")
	rt := &Runtime{language: s.language, Command: s.language.command(s)}
	got := rt.CommandFor(512, map[string]string{"_HANDLER": "pkg.Class::method"})
	if got[0] != "/var/lang/bin/java" || got[1] != "-XX:MaxHeapSize=445644k" || got[len(got)-1] != "pkg.Class::method" {
		t.Errorf("command %v", got)
	}
	if !slices.Contains(got, "-XX:TieredStopAtLevel=1") || !slices.Contains(got, "-XX:+UseSerialGC") {
		t.Errorf("command %v", got)
	}
}

// A distribution's JDK has its configuration in /etc, which comes along; its
// certificates are the base's.
func TestConfigurationOfAJDKComesAlong(t *testing.T) {
	prefix, etc := t.TempDir(), t.TempDir()
	for path, target := range map[string]string{"conf/net.properties": "/etc/java-21/net.properties", "lib/cacerts": "/etc/ssl/certs/java/cacerts", "lib/gone": "/etc/java-21/gone", "lib/x": "y"} {
		path = filepath.Join(prefix, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := (tree{"java-21/net.properties": file("a=b"), "java-21/other": file("x"), "ssl/certs/java/cacerts": file("x")}).write(etc); err != nil {
		t.Fatal(err)
	}
	got, err := javaVM{}.etc(prefix, etc)
	if err != nil || len(got) != 1 || string(got["java-21/net.properties"].data) != "a=b" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestJavaKeyStoreHoldsTheCertificatesOfABundle(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte("x")})...)
	store := javaKeyStore(append(bundle, bundle...))
	if binary.BigEndian.Uint32(store) != 0xfeedfeed || binary.BigEndian.Uint32(store[4:]) != 2 || binary.BigEndian.Uint32(store[8:]) != 2 {
		t.Errorf("begins %x", store[:12])
	}
	if bytes.Count(store, der) != 2 {
		t.Error("the certificates are not in it")
	}
	if !bytes.Equal(store, javaKeyStore(append(bundle, bundle...))) {
		t.Error("it differs each time")
	}
}
