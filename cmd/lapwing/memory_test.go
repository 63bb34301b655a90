package main

import "testing"

func TestTheProgramRunsOnWithoutThePagesOfItsStart(t *testing.T) {
	for range 3 {
		if err := forgetStart(); err != nil {
			t.Fatal(err)
		}
	}
}
