package main

// readHolding reads a byte while floating point registers hold a pattern, of 63 bits,
// and tells whether they still do afterwards.
//
//go:noescape
func readHolding(fd int, b *byte, pattern uint64) (same bool)
