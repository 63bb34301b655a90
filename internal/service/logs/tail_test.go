package logs

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/logstore"
)

func TestLiveTailSamplesAFloodAndEndsAfterThreeHours(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store, err := logstore.Open(dir, logstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if err := store.CreateGroup("g", nil); err != nil {
			t.Fatal(err)
		}
		s := New(store, Options{})
		out, err := s.StartLiveTail(t.Context(), &api.StartLiveTailInput{LogGroupIdentifiers: []string{"g"}})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now() // of the stream
		flood := make([]logstore.Event, 2000)
		for i := range flood {
			flood[i] = logstore.Event{Time: begin.Add(time.Duration(i) * time.Millisecond), Message: fmt.Sprint(i)}
		}
		updates := 0
		for e, err := range out.ResponseStream {
			if err != nil {
				if e, ok := err.(*aws.Error); !ok || e.Code != "SessionTimeoutException" {
					t.Errorf("ended by %v", err)
				}
				break
			}
			if e.SessionStart != nil {
				if err := store.Append("g", "s", flood); err != nil {
					t.Fatal(err)
				}
				continue
			}
			updates++
			results, sampled := e.SessionUpdate.SessionResults, *e.SessionUpdate.SessionMetadata.Sampled
			if updates > 1 {
				if len(results) != 0 || sampled {
					t.Fatalf("update %d has %d events", updates, len(results))
				}
				continue
			}
			if len(results) != tailMaxEvents || !sampled {
				t.Errorf("%d events, sampled: %v", len(results), sampled)
			}
			for i := 1; i < len(results); i++ {
				if *results[i].Timestamp <= *results[i-1].Timestamp {
					t.Fatal("the sample is out of order")
				}
			}
		}
		if d := time.Since(begin); d != tailSession || updates < 3*3600-1 {
			t.Errorf("session of %v with %d updates", d, updates)
		}
		if n := s.tails.Load(); n != 0 {
			t.Errorf("%d sessions left", n)
		}
	})
}

func TestFilterGoesOnBeyondTheScanLimit(t *testing.T) {
	store, err := logstore.Open(t.TempDir(), logstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := errors.Join(store.CreateGroup("g", nil), store.CreateStream("g", "s")); err != nil {
		t.Fatal(err)
	}
	line := string(make([]byte, 1<<20))
	now := time.Now()
	for i := range 2 * scanLimit / len(line) {
		if err := store.Put(t.Context(), "g", "s", []logstore.Event{{Time: now.Add(time.Duration(i) * time.Millisecond), Message: line}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Put(t.Context(), "g", "s", []logstore.Event{{Time: now.Add(time.Hour), Message: "needle"}}); err != nil {
		t.Fatal(err)
	}
	s := New(store, Options{})
	in := &api.FilterLogEventsInput{LogGroupName: aws.Ptr("g"), FilterPattern: aws.Ptr("needle")}
	for calls := 1; ; calls++ {
		out, err := s.FilterLogEvents(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if out.NextToken == nil {
			if len(out.Events) != 1 || calls != 3 {
				t.Errorf("%d events after %d calls", len(out.Events), calls)
			}
			return
		}
		in.NextToken = out.NextToken
	}
}
