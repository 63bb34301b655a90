package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/killtest"
	"lapwing.dev/lapwing/internal/state"
)

func TestMain(m *testing.M) { killtest.Main(m, changeUntilKilled) }

func pair(key, value string) Pair { return Pair{Key: key, Value: value} }

const all = ^uint64(0) // a revision that every location has

func openStore(ctx context.Context, dir string) (*state.Store, *Writer, error) {
	s, err := state.Open(ctx, state.Options{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	records, err := distribution.Open(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return s, NewWriter(NewStores(records.KeyValues)), nil
}

// open opens the records in a directory.
func open(t *testing.T, dir string) *Writer {
	t.Helper()
	s, w, err := openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// filled returns a store that is ready.
func filled(t *testing.T, pairs ...Pair) *Writer {
	t.Helper()
	w := open(t, t.TempDir())
	if err := w.Create(t.Context(), "s", "arn", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := w.Fill(t.Context(), "s", pairs, time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

func view(t *testing.T, s *Stores) *View {
	t.Helper()
	v, err := s.View("s")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAStoreHoldsWhatWasPut(t *testing.T) {
	w, want, r := filled(t), map[string]string{}, rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		var puts []Pair
		deletes := map[string]bool{}
		// It grows first, and shrinks then.
		for range 50 {
			key := fmt.Sprintf("key %05d", r.IntN(3000))
			if r.IntN(60) > round {
				puts = append(puts, pair(key, strings.Repeat("v", r.IntN(MaxValue))))
			} else {
				deletes[key] = true
			}
		}
		slices.SortFunc(puts, func(a, b Pair) int { return strings.Compare(a.Key, b.Key) })
		puts = slices.CompactFunc(puts, func(a, b Pair) bool { return a.Key == b.Key })
		puts = slices.DeleteFunc(puts, func(p Pair) bool { return deletes[p.Key] })
		for _, p := range puts {
			want[p.Key] = p.Value
		}
		for key := range deletes {
			delete(want, key)
		}
		head, err := w.Change(t.Context(), "s", view(t, w.Stores).Head.ETag, puts, slices.Collect(maps.Keys(deletes)), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		check(t, view(t, w.Stores), want)
		if head.Count != len(want) {
			t.Errorf("%d pairs counted, want %d", head.Count, len(want))
		}
		if _, err := w.Tidy(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.records.Len(); n != 1+len(view(t, w.Stores).parts) {
		t.Errorf("%d records of a store with %d parts", n, len(view(t, w.Stores).parts))
	}
	check(t, view(t, NewStores(w.records)), want)
}

// check compares a view with what it should hold.
func check(t *testing.T, v *View, want map[string]string) {
	t.Helper()
	bytes := 0
	for key, value := range want {
		bytes += len(key) + len(value)
		if got, ok := v.Get(key); !ok || got != value {
			t.Fatalf("%s has %d bytes (%v), want %d", key, len(got), ok, len(value))
		}
	}
	if v.Head.Bytes != int64(bytes) {
		t.Errorf("%d bytes counted, want %d", v.Head.Bytes, bytes)
	}
	for _, key := range []string{"", "key", "key 99999"} {
		if _, ok := v.Get(key); ok {
			t.Errorf("there is a key %q", key)
		}
	}
	var keys []string
	for after := ""; ; {
		page := v.After(after, 33)
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			keys = append(keys, p.Key)
		}
		after = keys[len(keys)-1]
	}
	if sorted := slices.Sorted(maps.Keys(want)); !slices.Equal(keys, sorted) {
		t.Fatalf("%d keys listed, want %d", len(keys), len(sorted))
	}
	for i, part := range v.parts {
		if n := size(part); n > maxPart || i > 0 && n+size(v.parts[i-1]) < minPart {
			t.Errorf("part %d of %d has %d bytes", i, len(v.parts), n)
		}
	}
}

func TestAFullStoreFitsItsRecords(t *testing.T) {
	var pairs []Pair
	// What JSON writes in six bytes, in keys as long as they can be.
	for i := range MaxBytes / (MaxKey + MaxValue) {
		pairs = append(pairs, pair(fmt.Sprintf("%04d", i)+strings.Repeat("\x01", MaxKey-4), strings.Repeat("\x02", MaxValue)))
	}
	w := filled(t, pairs...)
	if got := view(t, w.Stores).Head.Count; got != len(pairs) {
		t.Errorf("%d pairs, want %d", got, len(pairs))
	}
	etag := view(t, w.Stores).Head.ETag
	_, err := w.Change(t.Context(), "s", etag, []Pair{pair(strings.Repeat("k", MaxKey), strings.Repeat("v", MaxValue))}, nil, time.Now())
	if !errors.Is(err, ErrFull) {
		t.Errorf("a pair more: %v", err)
	}
	if _, err := w.Change(t.Context(), "s", etag, nil, []string{pairs[7].Key}, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestChangesNeedTheirVersionAndAStoreThatIsReady(t *testing.T) {
	w := open(t, t.TempDir())
	if _, err := w.Change(t.Context(), "s", "", nil, nil, time.Now()); !errors.Is(err, ErrMissing) {
		t.Errorf("no store: %v", err)
	}
	for range 2 {
		if err := w.Create(t.Context(), "s", "arn", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Change(t.Context(), "s", view(t, w.Stores).Head.ETag, nil, nil, time.Now()); !errors.Is(err, ErrState) {
		t.Errorf("not filled: %v", err)
	}
	if err := w.Fail(t.Context(), "s", "no object", time.Now()); err != nil {
		t.Fatal(err)
	}
	if h := view(t, w.Stores).Head; h.State != distribution.KeyValuesImportFailed || h.Reason != "no object" {
		t.Errorf("head %+v", h)
	}
	ready := filled(t)
	if _, err := ready.Change(t.Context(), "s", "KV1", nil, nil, time.Now()); !errors.Is(err, ErrChanged) {
		t.Errorf("another version: %v", err)
	}
}

func TestAViewStaysWhatItWas(t *testing.T) {
	w := filled(t, pair("a", "1"))
	before := view(t, w.Stores)
	if _, err := w.Change(t.Context(), "s", before.Head.ETag, []Pair{pair("a", "2")}, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Tidy(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if v, _ := before.Get("a"); v != "1" {
		t.Errorf("the earlier view has %q", v)
	}
	if v, _ := view(t, w.Stores).Get("a"); v != "2" {
		t.Errorf("the next view has %q", v)
	}
}

// A location that catches up may lose parts before it has the head that came
// after: what it had is served on.
func TestTheLastWholeVersionIsServedWhilePartsAreMissing(t *testing.T) {
	w := filled(t, pair("a", "1"))
	before := view(t, w.Stores)
	part, ok := w.records.Get(partKey("s", before.Head.Parts[0].ID))
	if !ok {
		t.Fatal("the part is missing")
	}
	head, _ := w.records.Get("s")
	if err := w.records.Delete(t.Context(), part.Key, part.Revision); err != nil {
		t.Fatal(err)
	}
	if _, err := w.records.Put(t.Context(), "s", head.Value); err != nil { // another revision
		t.Fatal(err)
	}
	if v, _ := view(t, w.Stores).Get("a"); v != "1" {
		t.Errorf("value %q", v)
	}
	if _, err := NewStores(w.records).View("s"); !errors.Is(err, ErrMissing) {
		t.Errorf("a location that never had it: %v", err)
	}
}

func TestAStoreThatIsGoneIsForgottenWithoutBeingAskedFor(t *testing.T) {
	w := filled(t, Pair{Key: "k", Value: "v"})
	view(t, w.Stores)
	if err := errors.Join(w.Delete(t.Context(), "s"), w.Create(t.Context(), "other", "arn", time.Now())); err != nil {
		t.Fatal(err)
	}
	if _, err := w.View("other"); err != nil {
		t.Fatal(err)
	}
	if len(w.views) != 1 {
		t.Errorf("%d stores are held, want 1", len(w.views))
	}
}

func TestPartsGoWhenEveryLocationHasTheNextHead(t *testing.T) {
	w := filled(t, pair("a", "1"))
	before, _ := w.records.Get("s")
	if w.Served("s", before.Revision-1) {
		t.Error("the store is served where it is not")
	}
	if !w.Served("s", before.Revision) || !w.Served("s", 0) {
		t.Error("the store is not served where it is, or not any more")
	}
	if _, err := w.Change(t.Context(), "s", before.Value.Head.ETag, []Pair{pair("a", "2")}, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if more, err := w.Tidy(t.Context(), before.Revision); err != nil || !more || w.records.Len() != 3 {
		t.Errorf("%d records, more %v, %v", w.records.Len(), more, err)
	}
	if more, err := w.Tidy(t.Context(), all); err != nil || more || w.records.Len() != 2 {
		t.Errorf("%d records, more %v, %v", w.records.Len(), more, err)
	}
	if err := w.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.View("s"); !errors.Is(err, ErrMissing) {
		t.Errorf("a store that was deleted: %v", err)
	}
	if _, err := w.Tidy(t.Context(), all); err != nil || w.records.Len() != 0 {
		t.Errorf("%d records, %v", w.records.Len(), err)
	}
}

// spread are keys in different parts.
var spread = []string{"0000", "1000", "2000", "2999"}

// changeUntilKilled changes keys in different parts at once, to one number.
func changeUntilKilled(dir string) error {
	ctx := context.Background()
	_, w, err := openStore(ctx, filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	if err := w.Create(ctx, "s", "arn", time.Now()); err != nil {
		return err
	}
	v, err := w.View("s")
	if err != nil {
		return err
	}
	if v.Head.State == distribution.KeyValuesProvisioning {
		var pairs []Pair
		for i := range 3000 {
			pairs = append(pairs, pair(fmt.Sprintf("%04d", i), strings.Repeat("v", 100)))
		}
		for _, key := range spread {
			n, _ := strconv.Atoi(key)
			pairs[n].Value = "0"
		}
		if err := w.Fill(ctx, "s", pairs, time.Now()); err != nil {
			return err
		}
		if v, err = w.View("s"); err != nil {
			return err
		}
	}
	last, _ := v.Get(spread[0])
	n, _ := strconv.Atoi(last)
	for etag := v.Head.ETag; ; {
		n++
		var puts []Pair
		for _, key := range spread {
			puts = append(puts, pair(key, strconv.Itoa(n)))
		}
		head, err := w.Change(ctx, "s", etag, puts, nil, time.Now())
		if err != nil {
			return err
		}
		etag = head.ETag
		fmt.Println(n)
		if _, err := w.Tidy(ctx, all); err != nil {
			return err
		}
	}
}

func TestKillLosesNoChangeThatWasAcknowledgedAndLeavesNoneInHalf(t *testing.T) {
	dir := t.TempDir()
	for range 5 {
		p := killtest.Start(t, dir)
		acknowledged, end := 0, time.Now().Add(time.Duration(50+rand.IntN(200))*time.Millisecond)
		for line := range p.Lines() {
			if n, err := strconv.Atoi(line); err == nil {
				acknowledged = n
			}
			if time.Now().After(end) {
				p.Kill()
			}
		}
		s, w, err := openStore(t.Context(), filepath.Join(dir, "state"))
		if err != nil {
			t.Fatal(err)
		}
		v := view(t, w.Stores)
		first, _ := v.Get(spread[0])
		for _, key := range spread {
			if value, _ := v.Get(key); value != first {
				t.Errorf("key %s has %s, key %s has %s", spread[0], first, key, value)
			}
		}
		if n, _ := strconv.Atoi(first); n < acknowledged {
			t.Errorf("the store has change %d, acknowledged was %d", n, acknowledged)
		}
		if _, err := w.Tidy(t.Context(), all); err != nil || w.records.Len() != 1+len(v.parts) || v.Head.Count != 3000 {
			t.Errorf("%d records and %d pairs of a store with %d parts, %v", w.records.Len(), v.Head.Count, len(v.parts), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImportSourcesAreRead(t *testing.T) {
	pairs, err := ReadSource(strings.NewReader(`{"data":[{"key":"b","value":"1"},{"key":"a","value":"{\"x\":2}"}]}`))
	if err != nil || len(pairs) != 2 || pairs[1] != (pair("a", `{"x":2}`)) {
		t.Errorf("pairs %v, %v", pairs, err)
	}
	for text, want := range map[string]string{
		`{`:                                 "not of the form",
		`[]`:                                "not of the form",
		`{}`:                                `no "data"`,
		`{"data":[{"key":"a"}]}`:            "lacks its key or its value",
		`{"data":[{"key":"a","value":1}]}`:  "not of the form",
		`{"data":[{"key":"","value":"1"}]}`: "empty",
		"{\"data\":[{\"key\":\"\xff\",\"value\":\"\"}]}":                     "not UTF-8",
		`{"data":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}`:         "twice",
		`{"data":[{"key":"` + strings.Repeat("k", 513) + `","value":"1"}]}`:  "maximum is 512",
		`{"data":[{"key":"a","value":"` + strings.Repeat("v", 1025) + `"}]}`: "maximum is 1024",
		`{"data":[` + strings.Repeat(" ", MaxBytes) + `]}`:                   "more than 5242880 bytes",
	} {
		if _, err := ReadSource(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", text, err, want)
		}
	}
}

func FuzzReadSource(f *testing.F) {
	f.Add(`{"data":[{"key":"b","value":"1"}]}`)
	f.Add(`{"data":[{"KEY":"b","value":null},{}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		pairs, err := ReadSource(strings.NewReader(text))
		if err != nil && len(pairs) > 0 {
			t.Error("pairs beside an error")
		}
		for _, p := range pairs {
			if err := Check(p); err != nil {
				t.Error(err)
			}
		}
	})
}
