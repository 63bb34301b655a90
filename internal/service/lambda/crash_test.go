package lambda

import (
	"fmt"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/killtest"
)

// TestCrashingWriter is that process: it works on functions one after the other
// and prints a line for each operation that was acknowledged.
func TestCrashingWriter(t *testing.T) {
	dir := killtest.Dir()
	if dir == "" {
		t.Skip("only as a child of TestKillLosesNothing")
	}
	f := newFixtureIn(t, dir, func(o *Options) { o.Snapshots = &fakeSnapshots{there: map[string]bool{}} })
	for i := 0; ; i++ {
		name := fmt.Sprintf("f%04d", i)
		f.create(name, func(in *api.CreateFunctionInput) {
			if i%2 == 1 { // its versions are Pending for a while
				withSnapStart(in)
			}
		})
		fmt.Println("created", name)
		for _, version := range []string{"1", "2"} {
			f.change(name, version)
			f.publish(name)
			fmt.Println("published", name, version)
		}
		if _, err := f.CreateAlias(f.ctx(), &api.CreateAliasInput{FunctionName: &name, Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("2")}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("aliased", name)
		if i%3 == 2 {
			old := fmt.Sprintf("f%04d", i-1)
			if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: &old}); err != nil {
				t.Fatal(err)
			}
			fmt.Println("deleted", old)
		}
	}
}

func TestKillLosesNothingAndLeavesNothingHalf(t *testing.T) {
	for _, acknowledged := range []int{1, 7, 16, 29} {
		t.Run(fmt.Sprintf("after %d operations", acknowledged), func(t *testing.T) {
			dir := t.TempDir()
			acks := killedAfter(t, dir, acknowledged)
			f := newFixtureIn(t, dir, func(o *Options) { o.Snapshots = &fakeSnapshots{there: map[string]bool{}} })
			for _, ack := range acks {
				op := strings.Fields(ack)
				e := f.entries.get(functionKey{testRegion, op[1]})
				deleted := strings.Contains(strings.Join(acks, "\n"), "deleted "+op[1])
				switch {
				case deleted:
					if e != nil {
						t.Errorf("%s, but it is there", ack)
					}
				case e == nil:
					// The one after the last acknowledged may have been deleted
					// without having said so.
					if last := acks[len(acks)-1]; !strings.HasPrefix(last, "aliased") {
						t.Errorf("%s, but it is gone", ack)
					}
				case op[0] == "published" && e.published(op[2]) == nil:
					t.Errorf("%s, but it is gone", ack)
				case op[0] == "aliased" && e.routes["live"] == nil:
					t.Errorf("%s, but it is gone", ack)
				}
			}
			for _, e := range f.entries.list("") {
				f.settled(e.key.name)
				for _, v := range e.versions {
					if got := f.settledVersion(e.key.name, number(v.Value.Number)); got.State != api.StateActive {
						t.Errorf("%s: version %d is %s", e.key, v.Value.Number, got.State)
					}
				}
				e.digests(func(digest string) {
					if !f.opts.Images.Has(digest) {
						t.Errorf("%s: no image of what it uses", e.key)
					}
				})
				for qualifier, r := range e.routes {
					if r.target == nil {
						t.Errorf("%s: %s leads nowhere", e.key, qualifier)
					}
				}
				f.change(e.key.name, "after the crash")
				f.publish(e.key.name)
			}
			// Each function has code of its own: one image and one blob.
			if n, want := len(f.stored()), 2*len(f.entries.list("")); n != want {
				t.Errorf("%d images and blobs for %d functions: %v", n, want/2, f.stored())
			}
		})
	}
}

// killedAfter runs TestCrashingWriter on dir until it has acknowledged n
// operations, kills it, and returns all that it had acknowledged by then.
func killedAfter(t *testing.T, dir string, n int) (acks []string) {
	t.Helper()
	p := killtest.Start(t, dir, "-test.run=^TestCrashingWriter$", "-test.v")
	for line := range p.Lines() {
		switch op := strings.Fields(line); {
		case len(op) < 2:
		case op[0] == "created", op[0] == "published", op[0] == "aliased", op[0] == "deleted":
			acks = append(acks, line)
		}
		if len(acks) >= n {
			p.Kill()
		}
	}
	p.Wait()
	return acks
}
