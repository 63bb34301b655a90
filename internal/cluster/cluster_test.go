package cluster

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"errors"
)

func TestCertificatesTellWhoANodeIs(t *testing.T) {
	a, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.Node(Identity{Edge, "FRA56-P1"})
	if err != nil {
		t.Fatal(err)
	}
	if i, err := IdentityOf(n.certificate.Load().Leaf); err != nil || i != n.Identity {
		t.Errorf("the certificate of %v is %v's, %v", n.Identity, i, err)
	}
	if err := verify(n.certificate.Load().Leaf, n.roots, hasRole(Edge)); err != nil {
		t.Error(err)
	}
	if err := verify(n.certificate.Load().Leaf, n.roots, hasRole(Core)); err == nil {
		t.Error("an edge location passes for the core")
	}
	other, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.Node(n.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(stranger.certificate.Load().Leaf, n.roots, hasRole(Edge)); err == nil {
		t.Error("a node of another installation passes for one of this")
	}
	for _, name := range []string{"", "a/b", "-a", "a.b", strings.Repeat("a", 33)} {
		if _, err := a.Node(Identity{Edge, name}); err == nil {
			t.Errorf("there is a node called %q", name)
		}
	}
}

func TestMembershipIsWhatWasWritten(t *testing.T) {
	a, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.Sign(Identity{Edge, "L1"}, public)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m")
	if _, err := ReadMembership[string](path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none yet: %v", err)
	}
	m := Membership[string]{Role: Edge, Name: "L1", Key: private, Certificate: der, CA: a.Certificate(), Facts: "facts"}
	if err := m.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadMembership[string](path)
	if err != nil || got.Facts != "facts" {
		t.Fatalf("%v, %v", got, err)
	}
	n, err := got.Node()
	if err != nil || n.Identity != (Identity{Edge, "L1"}) || n.Aging() || time.Until(n.Expires()) < 300*24*time.Hour {
		t.Errorf("%v, %v", n, err)
	}
	got.Name = "L2"
	if _, err := got.Node(); err == nil {
		t.Error("a membership has another node's certificate")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken("L1", strings.Repeat("0", 64)).String())
	f.Add(tokenPrefix + "e30")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token {
			t.Errorf("%v is %v when it is read again, %v", token, again, err)
		}
	})
}
