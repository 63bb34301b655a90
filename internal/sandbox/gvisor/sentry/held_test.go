package sentry

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestHeldCloneGoesOnForAnOrderAndNotForTheEndOfTheHost(t *testing.T) {
	for name, order := range map[string][]byte{"ordered": []byte("x"), "left": nil} {
		t.Run(name, func(t *testing.T) {
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(ends[0])
			defer unix.Close(ends[1])
			if order == nil {
				unix.Shutdown(ends[1], unix.SHUT_RDWR)
			} else if _, err := unix.Write(ends[1], order); err != nil {
				t.Fatal(err)
			}
			if err := awaitInput(ends[0]); (err == nil) != (order != nil) {
				t.Errorf("waiting ended with %v", err)
			}
		})
	}
}
