package accesslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// streams keeps what it takes: nothing of the first calls, and then all but the
// first entry of as many more.
type streams struct {
	fail, refuse int
	lines        map[string][]string // by ARN
	calls        int
}

func (s *streams) PutRecords(_ context.Context, arn string, entries []Entry) (refused []int, err error) {
	s.calls++
	if s.fail--; s.fail >= 0 {
		return nil, errors.New("the stream cannot be reached")
	}
	if s.lines == nil {
		s.lines = map[string][]string{}
	}
	for i, e := range entries {
		if i == 0 && s.refuse > 0 {
			s.refuse--
			refused = append(refused, i)
			continue
		}
		s.lines[arn] = append(s.lines[arn], string(e.Data))
	}
	return refused, nil
}

func streamer(s *streams, config distribution.RealtimeLog) *Streamer {
	return NewStreamer(StreamOptions{
		Config:  func(arn string) (distribution.RealtimeLog, bool) { return config, arn == "arn:config" },
		Streams: s, Logger: slog.New(slog.DiscardHandler),
	})
}

func realtimeSample() *Record {
	r := sample()
	r.Behaviour = &distribution.Behaviour{Pattern: "*", RealtimeLog: "arn:config"}
	r.Time = r.Time.Add(7 * time.Millisecond)
	return r
}

func TestARealtimeRecordHasItsFieldsInOrder(t *testing.T) {
	want := strings.Join([]string{
		"1772600767.007", "192.0.2.1", "-", "0.001", "200", "2000", "GET", "https", "d1.cloudfront.net", "/a%2520b", "100",
		"FRA56-P1", "abc==", "shop.example.net", "0.002", "HTTP/2.0", "IPv4", "Mozilla/5.0%20(X11)", "-", "secret=1",
		"x=1", "Hit", "-", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "Hit", "-", "-",
		"text/html;%20charset=utf-8", "1500", "-", "-", "4711", "Hit", "-", "-", "-",
		"*", "Host:shop.example.net%0ACookie:secret=1%0AUser-Agent:Mozilla/5.0%20(X11)%0A", "Host%0ACookie%0AUser-Agent%0A", "3", "-", "-",
		"-", "-", "-",
	}, "\t") + "\n"
	if got := string(realtimeSample().appendFields(nil, fieldsOf(Realtime...))); got != want {
		t.Errorf("record\n%swant\n%s", got, want)
	}
}

func TestEveryFieldOfARealtimeRecordIsKnown(t *testing.T) {
	for _, name := range Realtime {
		if fields[name] == nil {
			t.Errorf("there is no field %s", name)
		}
	}
}

func TestLongFieldsOfARealtimeRecordAreCut(t *testing.T) {
	r := realtimeSample()
	r.Header = http.Header{"Cookie": {strings.Repeat("c", 5000)}}
	for _, name := range []string{"cs-cookie", "cs-headers"} {
		if n := len(fields[name](r)); n != maxLong {
			t.Errorf("%s has %d bytes, want %d", name, n, maxLong)
		}
	}
}

func TestRealtimeRecordsArriveWithinSecondsAndAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &streams{fail: 1, refuse: 1}
		s := streamer(to, distribution.RealtimeLog{ARN: "arn:config", Stream: "arn:stream", Fields: []string{"timestamp", "sc-status"}, Sampling: 100})
		for range 3 {
			s.Log(realtimeSample())
		}
		s.Log(sample()) // of a behaviour without
		other := realtimeSample()
		other.Behaviour = &distribution.Behaviour{RealtimeLog: "arn:gone"}
		s.Log(other)
		time.Sleep(realtimeEvery + time.Millisecond)
		synctest.Wait()
		if to.calls != 1 || len(to.lines) != 0 {
			t.Errorf("%d calls, %v", to.calls, to.lines)
		}
		time.Sleep(realtimeEvery)
		synctest.Wait()
		if n := len(to.lines["arn:stream"]); n != 2 {
			t.Errorf("%d records after the second call, want 2", n)
		}
		s.Close()
		if lines := to.lines["arn:stream"]; len(lines) != 3 || lines[0] != "1772600767.007\t200\n" {
			t.Errorf("records %q", lines)
		}
	})
}

func TestRealtimeRecordsThatNobodyTakesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &streams{fail: 1 << 30}
		var log strings.Builder
		s := streamer(to, distribution.RealtimeLog{Stream: "arn:stream", Fields: []string{"cs-headers"}, Sampling: 100})
		s.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		for i := range 3 * realtimeCall {
			r := realtimeSample()
			r.Header = http.Header{"X": {strings.Repeat(fmt.Sprint(i%10), 10000)}}
			s.Log(r)
		}
		time.Sleep(2*realtimeAge + 2*realtimeEvery)
		synctest.Wait()
		to.fail = 0
		s.Close()
		if len(to.lines) != 0 || !strings.Contains(log.String(), "records=1500") {
			t.Errorf("%d records came after all; log %s", len(to.lines), log.String())
		}
	})
}

func TestSmallRecordsThatWaitAreBoundedByTheirMemory(t *testing.T) {
	s := &Streamer{}
	waits := &realtime{s: s, streams: map[string]*waiting{}}
	q := queuedRecord{realtimeSample(), distribution.RealtimeLog{Stream: "arn:stream", Fields: []string{"sc-status"}}}
	const n = realtimeHeld/realtimeEntry + 1
	for range n {
		waits.add(q)
	}
	kept := len(waits.streams["arn:stream"].entries)
	if dropped := int(s.dropped.Load()); dropped == 0 || kept+dropped != n {
		t.Errorf("of %d records %d wait, and %d were dropped", n, kept, dropped)
	}
}

func TestRequestsAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &streams{}
		s := streamer(to, distribution.RealtimeLog{Stream: "arn:stream", Fields: []string{"c-ip"}, Sampling: 25})
		for range 4000 {
			s.Log(realtimeSample())
		}
		s.Close()
		if n := len(to.lines["arn:stream"]); n < 800 || n > 1200 {
			t.Errorf("%d of 4000 records with a rate of 25 %%", n)
		}
	})
}
