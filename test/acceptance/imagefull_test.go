package acceptance_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/test/harness"
)

func TestFullDiskWhileAnImageIsUnpackedFailsTheFunctionAndLeavesNothing(t *testing.T) {
	t.Parallel()
	const room = 256 << 20
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := harness.Start(filepath.Join(disk, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	uri, auth := repository(t, s, "team/app")
	small := layerOf(t, named("handler", imageProgram(t)))
	// It is pushed compressed: what does not fit is what is in it.
	large := layerOf(t, file{tar.Header{Name: "zeros"}, strings.Repeat("\x00", room)})
	pushImage(t, uri+":small", auth, imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, small))
	pushImage(t, uri+":large", auth, imageOf(t, v1.Config{Entrypoint: []string{"/handler"}}, small, large))
	if got := createImage(t, s, "small", uri+":small").Configuration; got.State != types.StateActive {
		t.Fatalf("the small image is %s: %s", got.State, aws.ToString(got.StateReason))
	}

	before := free(t, disk)
	got := createImage(t, s, "large", uri+":large").Configuration
	if got.State != types.StateFailed || got.StateReasonCode != types.StateReasonCodeInternalError {
		t.Errorf("the large image is %s, %s: %s", got.State, got.StateReasonCode, aws.ToString(got.StateReason))
	}
	c := lambda.NewFromConfig(s.Config())
	if _, err := c.UpdateFunctionCode(t.Context(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("small"), ImageUri: aws.String(uri + ":large")}); err != nil {
		t.Fatal(err)
	}
	got = settled(t, s, "small").Configuration
	if got.State != types.StateActive || got.LastUpdateStatus != types.LastUpdateStatusFailed || got.LastUpdateStatusReasonCode != types.LastUpdateStatusReasonCodeInternalError {
		t.Errorf("the update is %s, %s: %s", got.LastUpdateStatus, got.LastUpdateStatusReasonCode, aws.ToString(got.LastUpdateStatusReason))
	}
	if left, err := filepath.Glob(filepath.Join(s.Data, "images/tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v are left", left, err)
	}
	if after := free(t, disk); after < before-(16<<20) {
		t.Errorf("of %d bytes that were free, %d are", before, after)
	}
	askImage(t, s, "small", "", "{}")
}

// free returns how many bytes a file system has left.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
