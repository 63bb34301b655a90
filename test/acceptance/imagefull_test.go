package acceptance_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/test/harness"
)

func TestFullDiskWhileAnImageIsPulledFailsTheFunctionAndLeavesNothing(t *testing.T) {
	t.Parallel()
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
	r := startRegistry(t)
	s, err := harness.Start(filepath.Join(disk, "data"), "--registries", registriesFile(t, map[string]any{"auths": map[string]any{r.host: login()}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	const room = 32 << 20
	noise := make([]byte, 2*room) // which does not get smaller by compression
	rand.NewChaCha8([32]byte{}).Read(noise)
	small := layerOf(t, named("handler", imageProgram(t)))
	settings := v1.Config{Entrypoint: []string{"/handler"}}
	pushImage(t, r.host+"/small:1", r.auth(), imageOf(t, settings, small))
	pushImage(t, r.host+"/large:1", r.auth(), imageOf(t, settings, small, layerOf(t, named("noise", string(noise)))))
	if got := createImage(t, s, "small", r.host+"/small:1").Configuration; got.State != types.StateActive {
		t.Fatalf("the small image is %s: %s", got.State, aws.ToString(got.StateReason))
	}
	askImage(t, s, "small", "", "{}")
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fill(filler, free(t, disk)-room); err != nil {
		t.Fatal(err)
	}

	before := free(t, disk)
	got := createImage(t, s, "large", r.host+"/large:1").Configuration
	if got.State != types.StateFailed || got.StateReasonCode != types.StateReasonCodeInternalError {
		t.Errorf("the large image is %s, %s: %s", got.State, got.StateReasonCode, aws.ToString(got.StateReason))
	}
	c := lambda.NewFromConfig(s.Config())
	update := func() *types.FunctionConfiguration {
		if _, err := c.UpdateFunctionCode(t.Context(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("small"), ImageUri: aws.String(r.host + "/large:1")}); err != nil {
			t.Fatal(err)
		}
		return settled(t, s, "small").Configuration
	}
	if got := update(); got.State != types.StateActive || got.LastUpdateStatus != types.LastUpdateStatusFailed || got.LastUpdateStatusReasonCode != types.LastUpdateStatusReasonCodeInternalError {
		t.Errorf("the update is %s, %s: %s", got.LastUpdateStatus, got.LastUpdateStatusReasonCode, aws.ToString(got.LastUpdateStatusReason))
	}
	nothingHalfWritten(t, s)
	if after := free(t, disk); after < before-room/2 {
		t.Errorf("of %d bytes that were free, %d are", before, after)
	}
	askImage(t, s, "small", "", "{}")

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got := update(); got.LastUpdateStatus != types.LastUpdateStatusSuccessful {
		t.Errorf("with room the update is %s, %s: %s", got.LastUpdateStatus, got.LastUpdateStatusReasonCode, aws.ToString(got.LastUpdateStatusReason))
	}
	askImage(t, s, "small", "", "{}")
}

// fill makes a file take so many bytes of its disk.
func fill(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
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
