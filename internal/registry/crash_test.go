package registry

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/state"
)

// The test binary runs itself with this variable set to the data directory, to
// be a process that pushes until it is killed.
const crashDir = "LAPWING_TEST_REGISTRY_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, pushUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// pushUntilKilled pushes, sweeps and deletes, and prints what was acknowledged:
// a tag and its digest, or an upload and its size.
func pushUntilKilled(dir string) error {
	ctx := context.Background()
	store, err := state.Open(ctx, state.Options{Dir: dir})
	if err != nil {
		return err
	}
	r, err := Open(ctx, Options{Store: store, Dir: filepath.Join(dir, "uploads"), AccountID: account, Region: "us-east-1"})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 3 {
		go func() { failed <- pushForever(ctx, r, w) }()
	}
	go func() {
		for {
			if err := r.sweepBlobs(ctx); err != nil {
				failed <- err
			}
		}
	}()
	return <-failed
}

func pushForever(ctx context.Context, r *Registry, w int) error {
	id, err := r.StartUpload("app")
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		size, err := r.Append(ctx, "app", id, -1, strings.NewReader("part,"))
		if err != nil {
			return err
		}
		fmt.Println("upload", id, size)
		unique := fmt.Sprint(time.Now().UnixNano(), " ", w)
		img, err := putImage(ctx, r, "app", fmt.Sprintf("t%d-%d", w, i), strings.Repeat(unique, 500))
		if err != nil {
			return err
		}
		fmt.Println("image", fmt.Sprintf("t%d-%d", w, i), img.Digest)
		if i%3 == 2 {
			if _, err := r.DeleteImage(ctx, "app", Reference{Digest: img.Digest}); err != nil {
				return err
			}
			fmt.Println("gone", fmt.Sprintf("t%d-%d", w, i), "-")
		}
	}
}

func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	for round := range 3 {
		dir := t.TempDir()
		r, end := openRegistry(t, dir)
		create(t, r, "app")
		end()

		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		images, uploads := map[string]string{}, map[string]int64{}
		pending := map[string]bool{} // deletions that may have been under way
		lines := 0
		for in := bufio.NewReader(out); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				break // a line that the kill cut short does not count
			}
			var kind, key, value string
			if _, err := fmt.Sscan(line, &kind, &key, &value); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			switch kind {
			case "image":
				images[key] = value
				var w, i int
				if _, err := fmt.Sscanf(key, "t%d-%d", &w, &i); err == nil && i%3 == 2 {
					pending[key] = true
				}
			case "gone":
				delete(pending, key)
				images[key] = ""
			case "upload":
				if uploads[key], err = strconv.ParseInt(value, 10, 64); err != nil {
					t.Fatal(err)
				}
			}
			if lines++; lines == 20+7*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		if lines < 20 {
			t.Fatalf("the process ended after %d lines", lines)
		}
		checkAfterKill(t, dir, images, uploads, pending)
	}
}

func checkAfterKill(t *testing.T, dir string, images map[string]string, uploads map[string]int64, pending map[string]bool) {
	t.Helper()
	r, end := openRegistry(t, dir)
	defer end()
	sweepLater(t, r, 0)
	for tag, want := range images {
		img, err := r.Image("app", Reference{Tag: tag})
		switch {
		case want == "":
			if err == nil {
				t.Errorf("%s is back", tag)
			}
			continue
		case err != nil && pending[tag]:
			continue
		case err != nil || string(img.Digest) != want:
			t.Errorf("%s is %s, %v; acknowledged was %s", tag, img.Digest, err, want)
			continue
		}
		if _, err := r.Manifest(img); err != nil {
			t.Error(err)
		}
		for _, d := range append(img.Blobs, img.Digest) {
			if err := r.blobs.Verify(state.Digest(d.Encoded())); err != nil {
				t.Errorf("%s: %v", tag, err)
			}
		}
	}
	for id, n := range uploads {
		size, err := r.UploadSize(t.Context(), "app", id)
		if err != nil || size < n {
			t.Errorf("upload %s has %d bytes, %v; acknowledged were %d", id, size, err, n)
			continue
		}
		if size%5 != 0 { // part of a chunk that was not acknowledged
			continue
		}
		want := digest.FromString(strings.Repeat("part,", int(size/5)))
		if _, err := r.FinishUpload(t.Context(), "app", id, want); err != nil {
			t.Errorf("finish the upload of a former process: %v", err)
		}
	}
}
