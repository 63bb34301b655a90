package accesslog

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// bucket keeps what is put into it, or fails as often as told.
type bucket struct {
	fail  int
	files map[string]string // by bucket/key, uncompressed
}

func (b *bucket) PutObject(_ context.Context, name, key string, body []byte) error {
	if b.fail--; b.fail >= 0 {
		return errors.New("no such bucket")
	}
	z, err := gzip.NewReader(strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(z)
	if b.files == nil {
		b.files = map[string]string{}
	}
	b.files[name+"/"+key] = string(text)
	return err
}

func sample() *Record {
	d := &distribution.Distribution{ID: "E1", DomainName: "d1.cloudfront.net", Logging: distribution.Logging{Bucket: "logs", Prefix: "cdn"}}
	return &Record{
		Distribution: d, Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Location: "FRA56-P1", RequestID: "abc==",
		ClientIP: netip.MustParseAddr("192.0.2.1"), ClientPort: 4711, Method: "GET", Protocol: "https", Version: "HTTP/2.0", Host: "shop.example.net",
		Path: "/a%20b", Query: "x=1", Header: http.Header{"User-Agent": {"Mozilla/5.0 (X11)"}, "Cookie": {"secret=1"}},
		TLSVersion: "TLSv1.2", TLSCipher: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Status: 200, BytesReceived: 100, BytesSent: 2000,
		ContentType: "text/html; charset=utf-8", ContentLength: 1500, RangeStart: -1, RangeEnd: -1, Result: "Hit", Response: "Hit", Detail: "Hit",
		TimeTaken: 1500 * time.Microsecond, FirstByte: time.Millisecond,
	}
}

func TestALineHasTheFieldsOfCloudFrontInOrder(t *testing.T) {
	want := strings.Join([]string{
		"2026-03-04", "05:06:07", "FRA56-P1", "2000", "192.0.2.1", "GET", "d1.cloudfront.net", "/a%2520b", "200", "-", "Mozilla/5.0%20(X11)", "x=1", "-",
		"Hit", "abc==", "shop.example.net", "https", "100", "0.002", "-", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "Hit", "HTTP/2.0", "-", "-",
		"4711", "0.001", "Hit", "text/html;%20charset=utf-8", "1500", "-", "-",
	}, "\t") + "\n"
	r := sample()
	if got := string(r.appendFields(nil, standard)); got != want {
		t.Errorf("line\n%swant\n%s", got, want)
	}
	if n := len(strings.Split(strings.SplitN(header, "\n", 3)[1], " ")) - 1; n != 33 {
		t.Errorf("%d fields are named, want 33", n)
	}
	r.Status, r.Distribution.Logging.Cookies = 0, true
	if got := strings.Split(string(r.appendFields(nil, standard)), "\t"); got[8] != "000" || got[12] != "secret=1" {
		t.Errorf("status %s, cookie %s", got[8], got[12])
	}
}

func TestALineHasNoMoreFieldsThanItShould(t *testing.T) {
	r := sample()
	r.Header = http.Header{"Referer": {"a\tb\nc"}, "User-Agent": {"\x00ü"}}
	if got := string(r.appendFields(nil, standard)); strings.Count(got, "\t") != 32 || strings.Count(got, "\n") != 1 {
		t.Errorf("line %q", got)
	}
}

func TestFilesAreDeliveredAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{fail: 1}
		w := New(Options{Objects: b, Logger: slog.New(slog.DiscardHandler)})
		w.Log(sample())
		w.Log(sample())
		silent := sample()
		silent.Distribution.Logging.Bucket = ""
		w.Log(silent)
		time.Sleep(interval + interval/5 + time.Second)
		synctest.Wait()
		if len(b.files) != 0 {
			t.Errorf("delivered although the bucket failed: %v", b.files)
		}
		time.Sleep(interval / 5)
		synctest.Wait()
		if len(b.files) != 1 {
			t.Fatalf("%d files, want 1", len(b.files))
		}
		for key, text := range b.files {
			if !strings.HasPrefix(key, "logs/cdn/E1.2026-03-04-05.") || !strings.HasSuffix(key, ".gz") {
				t.Errorf("key %s", key)
			}
			if lines := strings.Count(text, "\n"); lines != 4 || !strings.HasPrefix(text, header) {
				t.Errorf("%d lines: %s", lines, text)
			}
		}
		w.Log(sample())
		w.Close()
		if len(b.files) != 2 {
			t.Errorf("%d files after the end, want 2", len(b.files))
		}
	})
}
