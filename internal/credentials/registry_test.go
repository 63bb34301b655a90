package credentials

import (
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

func TestRegistryTokensWorkForTwelveHoursAndForNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		id := aws.Identity{AccountID: s.AccountID(), ARN: "arn:aws:iam::" + s.AccountID() + ":user/u", UserID: "AIDA1"}
		token, expires, err := s.IssueRegistryToken(id)
		if err != nil || !expires.Equal(time.Now().Add(12*time.Hour)) {
			t.Fatalf("expires %v, %v", expires, err)
		}
		if got, err := s.CheckRegistryToken(token); err != nil || got != id {
			t.Errorf("token is of %+v, %v", got, err)
		}
		session, err := s.IssueFor(id, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CheckRegistryToken(session.SessionToken); err != ErrInvalidToken {
			t.Errorf("a session token: %v", err)
		}
		if _, _, err := s.Lookup(session.AccessKeyID, token); err != ErrInvalidToken {
			t.Errorf("as a session token: %v", err)
		}
		if _, err := open(t).CheckRegistryToken(token); err != ErrInvalidToken {
			t.Errorf("of another data directory: %v", err)
		}
		if _, _, err := s.IssueRegistryToken(aws.Identity{AccountID: "000000000000", ARN: "x"}); err == nil {
			t.Error("one for another account was issued")
		}
		time.Sleep(12*time.Hour + time.Second)
		if _, err := s.CheckRegistryToken(token); err != ErrExpired {
			t.Errorf("after its time: %v", err)
		}
	})
}
