//go:build !amd64

package main

import "os"

func readHolding(fd int, _ *byte, _ uint64) bool {
	_, err := os.NewFile(uintptr(fd), "pipe").Read(make([]byte, 1))
	return err == nil
}
