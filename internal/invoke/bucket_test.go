package invoke

import (
	"testing"
	"time"
)

func TestTokenThatIsGivenBackCanBeTakenAgain(t *testing.T) {
	var b bucket
	const n = 3
	for range n {
		if !b.take(0, n, time.Second) {
			t.Fatal("a full bucket has too few tokens")
		}
	}
	if b.take(0, n, time.Second) {
		t.Fatal("a bucket has more tokens than it holds")
	}
	b.give(n, time.Second)
	if !b.take(0, n, time.Second) || b.take(0, n, time.Second) {
		t.Error("what was given back is not one token")
	}
}
