package s3

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/killtest"
	"lapwing.dev/lapwing/internal/state"
)

func TestMain(m *testing.M) { killtest.Main(m, writeUntilKilled) }

// crashBody is a body that is known by its number.
func crashBody(n int) string { return strings.Repeat(fmt.Sprintf("%d,", n), 1000) }

// writeUntilKilled puts, overwrites, deletes and uploads in parts, and prints a
// line before and after each: the key and the number of its body (0: deleted).
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	store, err := state.Open(ctx, state.Options{Dir: dir})
	if err != nil {
		return err
	}
	s, err := New(ctx, Options{Store: store, AccountID: account})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 3 {
		go func() {
			for i := 1; ; i++ {
				key := fmt.Sprintf("%d/%d", w, i%3)
				n := int(time.Now().UnixNano()) + w
				if i%5 == 0 {
					n = 0
				}
				fmt.Println("try", key, n)
				if err := crashWrite(ctx, s, key, n, i%4 == 0); err != nil {
					failed <- err
					return
				}
				fmt.Println("ok", key, n)
			}
		}()
	}
	return <-failed
}

func crashWrite(ctx context.Context, s *Service, key string, n int, parts bool) error {
	in := putInput(key, crashBody(n))
	if n == 0 {
		_, err := s.DeleteObject(ctx, &api.DeleteObjectInput{Bucket: in.Bucket, Key: &key})
		return err
	}
	if !parts {
		_, err := s.PutObject(ctx, in)
		return err
	}
	created, err := s.CreateMultipartUpload(ctx, &api.CreateMultipartUploadInput{Bucket: in.Bucket, Key: &key})
	if err != nil {
		return err
	}
	part, err := s.UploadPart(ctx, &api.UploadPartInput{Bucket: in.Bucket, Key: &key, UploadId: created.UploadId, PartNumber: aws.Ptr(int32(1)), Body: in.Body})
	if err != nil {
		return err
	}
	_, err = s.CompleteMultipartUpload(ctx, &api.CompleteMultipartUploadInput{Bucket: in.Bucket, Key: &key, UploadId: created.UploadId,
		MultipartUpload: &api.CompletedMultipartUpload{Parts: []*api.CompletedPart{{PartNumber: aws.Ptr(int32(1)), ETag: part.ETag}}}})
	return err
}

func TestKillKeepsObjectsWholeAndLeavesNoStrayBody(t *testing.T) {
	const kills = 20
	dir := t.TempDir()
	s, closeStore := openService(t, dir)
	makeBucket(t, s, "bbb", "")
	closeStore()
	acknowledged, tried := map[string]int{}, map[string]int{}
	writes := 0
	for round := range kills {
		crash(t, dir, 5+round%7*5, func(event, key string, n int) {
			switch event {
			case "try":
				tried[key] = n
			case "ok":
				acknowledged[key] = n
				delete(tried, key)
				writes++
			}
		})
		s, closeStore := openService(t, dir)
		for key, want := range acknowledged {
			body, err := get(t, s, key, "")
			matches := func(n int) bool {
				if n == 0 {
					return err != nil && strings.Contains(err.Error(), "NoSuchKey")
				}
				return err == nil && body == crashBody(n)
			}
			maybe, open := tried[key]
			switch {
			case matches(want):
			case open && matches(maybe):
				acknowledged[key] = maybe
			default:
				t.Fatalf("round %d: %s holds %.30q (%v), acknowledged was %d", round, key, body, err, want)
			}
		}
		clear(tried)
		needed := map[state.Digest]bool{}
		for v := range s.versions.Scan("", "") {
			for _, d := range v.Value.digests() {
				needed[d] = true
			}
		}
		for p := range s.parts.Scan("", "") {
			for _, d := range p.Value.digests() {
				needed[d] = true
			}
		}
		if n := countBlobs(t, s); n != len(needed) {
			t.Errorf("round %d: %d bodies, %d are needed", round, n, len(needed))
		}
		closeStore()
	}
	t.Logf("%d acknowledged writes survived %d kills", writes, kills)
}

// crash runs a writing process on dir, kills it when it has printed so many
// acknowledgements, and reports all that it had printed.
func crash(t *testing.T, dir string, acknowledgements int, report func(event, key string, n int)) {
	t.Helper()
	p := killtest.Start(t, dir)
	for line := range p.Lines() {
		var event, key string
		var n int
		if _, err := fmt.Sscan(line, &event, &key, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		report(event, key, n)
		if event == "ok" {
			if acknowledgements--; acknowledgements == 0 {
				p.Kill()
			}
		}
	}
	p.Wait()
}
