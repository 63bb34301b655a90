package functionurl

import (
	"errors"
	"net/http"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/sigv4"
	"lapwing.dev/lapwing/internal/credentials"
)

// forbidden refuses callers who are not allowed, in AWS's words.
func forbidden() error {
	return &aws.Error{
		Code: codeDenied, Status: http.StatusForbidden,
		Message: "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html",
	}
}

// admit lets the caller in, or tells why not: a URL of AuthType NONE asks for
// nothing but the public's permission in the resource policy, one of AWS_IAM for
// the signature of a principal of the account, to whom everything is permitted
// until identity policies are evaluated.
func (x *exchange) admit() error {
	if !x.url.IAM {
		if !x.url.Public {
			return forbidden()
		}
		return nil
	}
	caller, err := x.authenticate()
	if failure, ok := errors.AsType[*sigv4.Failure](err); ok {
		if failure.IsAnonymous() {
			return forbidden()
		}
		e := failure.In(sigv4.RESTJSON)
		e.MessageKey = "message"
		return e
	}
	if err != nil {
		return err
	}
	if caller.AccountID != x.request.AccountID {
		return forbidden()
	}
	x.caller = &caller
	return nil
}

// authenticate verifies the signature, which replaces the request's body by the
// one that was signed.
func (x *exchange) authenticate() (aws.Identity, error) {
	none := aws.Identity{}
	auth, err := sigv4.Parse(x.r)
	if err != nil {
		return none, err
	}
	secret, caller, err := x.h.options.Credentials.Lookup(auth.AccessKeyID, auth.SessionToken)
	switch {
	case errors.Is(err, credentials.ErrExpired):
		return none, sigv4.ExpiredToken()
	case errors.Is(err, credentials.ErrUnknownKey), errors.Is(err, credentials.ErrInvalidToken):
		return none, sigv4.UnknownAccessKey(auth)
	case err != nil:
		return none, err
	}
	err = x.h.verifier.Verify(x.r, auth, secret, &sigv4.Rules{
		Dialect: sigv4.RESTJSON, Service: "lambda", Regions: []string{x.request.Region},
		MaxBody: maxPayload, TooLarge: tooLarge,
	})
	return caller, err
}
