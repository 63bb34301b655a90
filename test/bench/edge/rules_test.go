package main

import (
	"slices"
	"testing"
)

// otherwise are the rules that CloudFront documents otherwise
// (docs/edge-cache-tests.md has the reasons).
var otherwise = []string{
	"answers to Authorization are not stored",
	"500 without a lifetime is not stored",
	"Vary tells variants apart",
	"POST that succeeds makes what is stored invalid",
}

func TestLapwingKeepsTheRulesOfCachingButWhereCloudFrontDoesNot(t *testing.T) {
	b := &bench{dir: t.TempDir()}
	var err error
	if b.origin, err = startOrigin(); err != nil {
		t.Fatal(err)
	}
	defer b.origin.close()
	s, err := b.startLapwing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	b.servers = []*server{s}
	if err := b.conformance(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.report.Rules {
		want := "yes"
		if slices.Contains(otherwise, r.Name) {
			want = "no"
		}
		if got := r.Results[own]; got != want {
			t.Errorf("%s: %s: %s, want %s", r.Group, r.Name, got, want)
		}
	}
}
