package credentials

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type fakeSource struct{}

func (fakeSource) UserKey(id string) (string, aws.Identity, bool) {
	if id != "AKIAUSER" {
		return "", aws.Identity{}, false
	}
	return "user-secret", aws.Identity{AccountID: "1", ARN: "arn:aws:iam::1:user/u", UserID: "AIDA1"}, true
}

func (fakeSource) RoleID(arn string) (string, bool) {
	return "AROAKNOWN", strings.HasSuffix(arn, ":role/known")
}

func TestOpenMakesCredentialsOnceAndKeepsThem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing: %v", err)
	}
	var roots [8]Root
	var wg sync.WaitGroup
	for i := range roots {
		wg.Go(func() {
			s, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = s.Root()
		})
	}
	wg.Wait()
	read, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roots {
		if r != read {
			t.Errorf("root is %v, then %v", r, read)
		}
	}
	if !regexp.MustCompile(`^[1-9]\d{11}$`).MatchString(read.AccountID) {
		t.Errorf("account id %q", read.AccountID)
	}
	if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(read.AccessKeyID) || len(read.SecretAccessKey) != 40 {
		t.Errorf("access key %q, secret of %d characters", read.AccessKeyID, len(read.SecretAccessKey))
	}
	if account, ok := AccountOfKey(read.AccessKeyID); !ok || account != read.AccountID {
		t.Errorf("account of the key is %q, want %q", account, read.AccountID)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want one file", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	tests := map[string]struct {
		mode    os.FileMode
		change  func(string) string
		message string
	}{
		"readable by others": {0o644, func(s string) string { return s }, "chmod 600"},
		"newer version":      {0o600, func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) }, "version 2"},
		"cut off":            {0o600, func(s string) string { return s[:len(s)/2] }, "JSON"},
		"no seal key":        {0o600, func(s string) string { return strings.Replace(s, `"sealKey"`, `"other"`, 1) }, "incomplete"},
		"bad account":        {0o600, func(s string) string { return strings.Replace(s, `"accountId": "`, `"accountId": "x`, 1) }, "twelve digits"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Open(dir); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, fileName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := []byte(tt.change(string(b)))
			if err := errors.Join(os.WriteFile(path, changed, tt.mode), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error is %v, want one with %q", err, tt.message)
			}
			if after, _ := os.ReadFile(path); string(after) != string(changed) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestLookupOfLongTermKeys(t *testing.T) {
	s := open(t)
	root := s.Root()
	secret, id, err := s.Lookup(root.AccessKeyID, "")
	want := aws.Identity{AccountID: root.AccountID, ARN: "arn:aws:iam::" + root.AccountID + ":root", UserID: root.AccountID, AccessKeyID: root.AccessKeyID}
	if err != nil || secret != root.SecretAccessKey || id != want {
		t.Errorf("root is %+v, %v", id, err)
	}
	if _, _, err := s.Lookup(root.AccessKeyID, "token"); err != ErrInvalidToken {
		t.Errorf("root with a token: %v", err)
	}
	if _, _, err := s.Lookup("AKIAUSER", ""); err != ErrUnknownKey {
		t.Errorf("user without a source: %v", err)
	}
	s.SetSource(fakeSource{})
	secret, id, err = s.Lookup("AKIAUSER", "")
	if err != nil || secret != "user-secret" || id.ARN != "arn:aws:iam::1:user/u" || id.AccessKeyID != "AKIAUSER" {
		t.Errorf("user is %+v, %v", id, err)
	}
	for _, key := range []string{"", "AKIA", "AKIAOTHER", "\x00"} {
		if _, _, err := s.Lookup(key, ""); err != ErrUnknownKey {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestSessionActsAsItsRoleUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		s.SetSource(fakeSource{})
		account := s.AccountID()
		session, err := s.Issue("arn:aws:iam::"+account+":role/team/known", "my-function", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		secret, id, err := s.Lookup(session.AccessKeyID, session.SessionToken)
		if err != nil || secret != session.SecretAccessKey || id != session.Identity {
			t.Fatalf("lookup gives %+v, %v; issued was %+v", id, err, session)
		}
		if want := "arn:aws:sts::" + account + ":assumed-role/known/my-function"; id.ARN != want {
			t.Errorf("ARN is %s, want %s", id.ARN, want)
		}
		if len(session.SecretAccessKey) != 40 || !strings.HasPrefix(session.AccessKeyID, "ASIA") {
			t.Errorf("session is %+v", session)
		}
		if !session.Expiration.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("expiration is %v, now is %v", session.Expiration, time.Now())
		}
		time.Sleep(time.Hour)
		if _, _, err := s.Lookup(session.AccessKeyID, session.SessionToken); err != nil {
			t.Errorf("at the very end: %v", err)
		}
		time.Sleep(time.Second)
		if _, _, err := s.Lookup(session.AccessKeyID, session.SessionToken); err != ErrExpired {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestSessionsSurviveARestartAndNotAnotherKey(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	session, err := first.IssueFor(aws.Identity{AccountID: first.AccountID(), ARN: "arn:aws:iam::1:user/u", UserID: "AIDA1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	secret, id, err := second.Lookup(session.AccessKeyID, session.SessionToken)
	if err != nil || secret != session.SecretAccessKey || id.ARN != "arn:aws:iam::1:user/u" || id.UserID != "AIDA1" {
		t.Errorf("after a restart: %+v, %v", id, err)
	}
	if _, _, err := open(t).Lookup(session.AccessKeyID, session.SessionToken); err != ErrInvalidToken {
		t.Errorf("another data directory: %v", err)
	}
}

func TestLookupRefusesForgedTokens(t *testing.T) {
	s := open(t)
	role := "arn:aws:iam::" + s.AccountID() + ":role/r"
	a, err := s.Issue(role, "one", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Issue(role, "two", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := base64.StdEncoding.DecodeString(a.SessionToken)
	raw[len(raw)-1] ^= 1
	for name, token := range map[string]string{
		"none": "", "another session's": b.SessionToken, "changed": base64.StdEncoding.EncodeToString(raw),
		"not base64": "%", "short": "AQ==", "long": strings.Repeat("A", 1<<20), "other version": "Ag" + a.SessionToken[2:],
	} {
		if _, _, err := s.Lookup(a.AccessKeyID, token); err != ErrInvalidToken {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIssueRefusesWhatIsNotOurs(t *testing.T) {
	s := open(t)
	own := "arn:aws:iam::" + s.AccountID() + ":role/r"
	if _, err := s.Issue(own, "f", time.Hour); err != nil { // a function's name can be that short
		t.Error(err)
	}
	tests := map[string]struct {
		role, session string
		ttl           time.Duration
	}{
		"other account": {"arn:aws:iam::000000000000:role/r", "abc", time.Hour},
		"not a role":    {"arn:aws:iam::" + s.AccountID() + ":user/r", "abc", time.Hour},
		"no ARN":        {"r", "abc", time.Hour},
		"bad name":      {own, "a/b", time.Hour},
		"no name":       {own, "", time.Hour},
		"no life":       {own, "abc", 0},
		"too long":      {own, "abc", 37 * time.Hour},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Issue(tt.role, tt.session, tt.ttl); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestRoleIDIsTheStoredOneOrStable(t *testing.T) {
	s := open(t)
	s.SetSource(fakeSource{})
	prefix := "arn:aws:iam::" + s.AccountID() + ":role/"
	if id := s.roleID(prefix + "known"); id != "AROAKNOWN" {
		t.Errorf("known role has id %s", id)
	}
	x, y := s.roleID(prefix+"x"), s.roleID(prefix+"x")
	if x != y || !regexp.MustCompile(`^AROA[A-Z2-7]{17}$`).MatchString(x) {
		t.Errorf("unknown role has ids %s and %s", x, y)
	}
}

func TestAccountOfKeyRefusesOtherKeys(t *testing.T) {
	for _, key := range []string{"", "AKIA", "AKIA0000000000000000", "XXXXAAAAAAAAAAAAAAAA", "AKIA7777777777777777"} {
		if account, ok := AccountOfKey(key); ok {
			t.Errorf("key %q is of account %s", key, account)
		}
	}
}

func FuzzLookup(f *testing.F) {
	s := open(f)
	session, err := s.Issue("arn:aws:iam::"+s.AccountID()+":role/r", "fuzz", time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(session.AccessKeyID, session.SessionToken)
	f.Add(s.Root().AccessKeyID, "")
	f.Fuzz(func(t *testing.T, key, token string) {
		_, _, err := s.Lookup(key, token)
		token = strings.NewReplacer("\r", "", "\n", "").Replace(token) // base64 skips them
		genuine := key == s.Root().AccessKeyID && token == "" || key == session.AccessKeyID && token == session.SessionToken
		if (err == nil) != genuine {
			t.Errorf("key %q, token %q: %v", key, token, err)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	s := open(b)
	session, err := s.Issue("arn:aws:iam::"+s.AccountID()+":role/r", "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for name, key := range map[string][2]string{"root": {s.Root().AccessKeyID, ""}, "session": {session.AccessKeyID, session.SessionToken}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Lookup(key[0], key[1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
