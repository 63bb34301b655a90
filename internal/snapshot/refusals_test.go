package snapshot

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusalIsRememberedUntilItIsForgotten(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		id, other, made := s.ID("f"), s.ID("g"), s.ID("made all the same")
		for _, one := range []string{id, other, made} {
			s.Refuse(one, "it holds a lock")
		}
		s.Remove(other)
		mustMake(t, s, made)
		for what, s := range map[string]*Store{"at once": s, "opened again": open(t, o)} {
			if reason, refused := s.Refused(id); !refused || reason != "it holds a lock" {
				t.Errorf("%s: %q, %v", what, reason, refused)
			}
			for _, one := range []string{other, made, s.ID("never heard of")} {
				if reason, refused := s.Refused(one); refused {
					t.Errorf("%s: %q", what, reason)
				}
			}
		}
	})
}

func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := openRefusals(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
		for n := range maxRefusals + 3 {
			r.add(fmt.Sprint(n), strings.Repeat("é", maxReason))
			time.Sleep(time.Second)
		}
		r = openRefusals(dir, r.log)
		if _, refused := r.of("2"); refused || len(r.byID) != maxRefusals {
			t.Errorf("%d refusals are kept, among them one of the oldest: %v", len(r.byID), refused)
		}
		if reason, refused := r.of("3"); !refused || len(reason) > maxReason {
			t.Errorf("a reason of %d bytes, %v", len(reason), refused)
		}
		time.Sleep(refusalTTL)
		if _, refused := r.of(fmt.Sprint(maxRefusals)); refused {
			t.Error("it holds for ever")
		}
		if r = openRefusals(dir, r.log); len(r.byID) > 0 {
			t.Errorf("%d hold for ever", len(r.byID))
		}
	})
}

func TestRefusalsThatCannotBeReadAreNone(t *testing.T) {
	for what, content := range map[string]string{
		"empty": "", "cut short": `{"format":1,"refusals":{"id":{"rea`, "of the future": `{"format":2,"refusals":{"id":{"reason":"r","since":"` + time.Now().Format(time.RFC3339) + `"}}}`,
		"from tomorrow": `{"format":1,"refusals":{"id":{"reason":"r","since":"` + time.Now().Add(25*time.Hour).Format(time.RFC3339) + `"}}}`,
		"too large":     `{"format":1,"refusals":{"id":{"reason":"` + strings.Repeat("x", maxRefusalsBytes) + `"}}}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, refusalsFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, Options{Dir: dir, Base: "b", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if reason, refused := s.Refused("id"); refused {
			t.Errorf("%s: %q", what, reason)
		}
		s.Refuse("id", "a new reason")
		s = open(t, s.opts)
		if reason, _ := s.Refused("id"); reason != "a new reason" {
			t.Errorf("%s: afterwards %q", what, reason)
		}
	}
}
