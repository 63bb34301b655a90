package sigv4

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

// Dialect is the family of protocols in whose words a failure is told. AWS's
// services share the checks and differ in codes, statuses and messages.
type Dialect uint8

const (
	RESTJSON Dialect = iota // Lambda and the like: …Exception, status 403
	RPC                     // AWS-JSON and CBOR protocols: …Exception, status 400
	Query                   // Query and REST-XML protocols: IAM, STS, CloudFront
	S3
)

// maxSkew is how far a request's time may be from ours.
func (d Dialect) maxSkew() time.Duration {
	if d == S3 {
		return 15 * time.Minute
	}
	return 5 * time.Minute
}

// Failure says why a request is not authenticated.
type Failure struct {
	code      string // the Query code; the JSON protocols' codes derive from it
	message   string
	s3Code    string
	s3Status  int
	s3Message string
	s3Extra   map[string]string
	anonymous bool
}

// Error implements error, for logs.
func (f *Failure) Error() string { return f.code + ": " + f.message }

// IsAnonymous tells that the request carries no signature at all.
func (f *Failure) IsAnonymous() bool { return f.anonymous }

// In renders the failure as a service of the dialect puts it.
func (f *Failure) In(d Dialect) *aws.Error {
	if d == S3 {
		return &aws.Error{Code: f.s3Code, Status: f.s3Status, Message: f.s3Message, Extra: f.s3Extra}
	}
	e := &aws.Error{Code: f.code, Message: f.message}
	switch d {
	case Query:
		e.Status = http.StatusForbidden
		if f.code == "IncompleteSignature" {
			e.Status = http.StatusBadRequest
		}
		return e
	case RPC:
		e.Status = http.StatusBadRequest
	default:
		e.Status = http.StatusForbidden
	}
	switch f.code {
	case "SignatureDoesNotMatch":
		e.Code = "InvalidSignatureException"
	case "InvalidClientTokenId":
		e.Code = "UnrecognizedClientException"
	case "MissingAuthenticationToken":
		e.Code = "MissingAuthenticationTokenException"
		if d == RESTJSON && f.anonymous {
			e.Message = "Missing Authentication Token"
		}
	default:
		e.Code += "Exception"
	}
	return e
}

func failAnonymous() *Failure {
	return &Failure{
		code: "MissingAuthenticationToken", message: "Request is missing Authentication Token", anonymous: true,
		s3Code: "AccessDenied", s3Status: http.StatusForbidden, s3Message: "Access Denied",
	}
}

// UnknownAccessKey is the failure of a request whose access key id, or whose
// session token, is not one of ours.
func UnknownAccessKey(a *Authorization) *Failure {
	f := &Failure{
		code: "InvalidClientTokenId", message: "The security token included in the request is invalid.",
		s3Code: "InvalidAccessKeyId", s3Status: http.StatusForbidden,
		s3Message: "The AWS Access Key Id you provided does not exist in our records.",
		s3Extra:   map[string]string{"AWSAccessKeyId": a.AccessKeyID},
	}
	if a.SessionToken != "" {
		f.s3Code, f.s3Status, f.s3Extra = "InvalidToken", http.StatusBadRequest, nil
		f.s3Message = "The provided token is malformed or otherwise invalid."
	}
	return f
}

// ExpiredToken is the failure of a request with temporary credentials whose
// time is over.
func ExpiredToken() *Failure {
	return &Failure{
		code: "ExpiredToken", message: "The security token included in the request is expired",
		s3Code: "ExpiredToken", s3Status: http.StatusBadRequest, s3Message: "The provided token has expired.",
	}
}

// incomplete is a request whose signature cannot be read.
func incomplete(message string) *Failure {
	return &Failure{code: "IncompleteSignature", message: message, s3Status: http.StatusBadRequest}
}

func (f *Failure) s3(code, message string) *Failure {
	f.s3Code, f.s3Message = code, message
	return f
}

func failMalformedHeader(message, s3Detail string) *Failure {
	return incomplete(message).s3("AuthorizationHeaderMalformed", "The authorization header is malformed; "+s3Detail+".")
}

func failNotKeyValue(part, header string) *Failure {
	return failMalformedHeader(
		fmt.Sprintf("'%s' not a valid key=value pair (missing equal-sign) in Authorization header: '%s'.", part, header),
		"the authorization component \""+part+"\" is malformed")
}

func failMissingComponents(missing []string, noDate bool) *Failure {
	var message []string
	for _, name := range missing {
		message = append(message, "Authorization header requires '"+name+"' parameter.")
	}
	if noDate {
		message = append(message, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	f := failMalformedHeader(strings.Join(message, " "), "the authorization header requires three components: Credential, SignedHeaders, and Signature")
	if len(missing) == 0 {
		f.s3Code, f.s3Status, f.s3Message = "AccessDenied", http.StatusForbidden, "AWS authentication requires a valid Date or x-amz-date header"
	}
	return f
}

func failMissingParameters(missing []string) *Failure {
	var message []string
	for _, name := range missing {
		message = append(message, "AWS query-string parameters must include '"+name+"'.")
	}
	message = append(message, "Re-examine the query-string parameters.")
	return incomplete(strings.Join(message, " ")).s3("AuthorizationQueryParametersError", s3QueryParameters)
}

const s3QueryParameters = "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."

func failQueryParameter(name, s3Message string) *Failure {
	return incomplete("The query-string parameter '"+name+"' is not valid. "+s3Message).s3("AuthorizationQueryParametersError", s3Message)
}

func failCredential(credential string, a *Authorization) *Failure {
	elements := "5 slash-delimited elements, e.g. keyid/date/region/service/term"
	if a.asymmetric {
		elements = "4 slash-delimited elements, e.g. keyid/date/service/term"
	}
	f := incomplete("Credential must have exactly " + elements + ", got '" + credential + "'")
	const form = `the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`
	if a.Presigned {
		return f.s3("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; "+form)
	}
	return f.s3("AuthorizationHeaderMalformed", "The authorization header is malformed; "+form)
}

func failTimestamp(value string, presigned bool) *Failure {
	f := incomplete("Date must be in ISO-8601 'basic format'. Got '" + value + "'. See http://en.wikipedia.org/wiki/ISO_8601")
	if presigned {
		return f.s3("AuthorizationQueryParametersError", `X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd'T'HHmmss'Z'"`)
	}
	f.s3Status = http.StatusForbidden
	return f.s3("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
}

func failAlgorithm(alg string) *Failure {
	return incomplete("Unsupported AWS 'algorithm': '"+alg+"' (only AWS4-HMAC-SHA256 for now). ").
		s3("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

func failQueryAlgorithm(alg string) *Failure {
	f := failAlgorithm(alg)
	if alg == "" {
		return f.s3("AuthorizationQueryParametersError", s3QueryParameters)
	}
	return f.s3("AuthorizationQueryParametersError", `X-Amz-Algorithm only supports "AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256"`)
}

// failAsymmetric refuses SigV4A where the service does not take it.
func failAsymmetric() *Failure {
	const message = "Asymmetric signatures (" + algorithmECDSA + ") are not supported by this endpoint; sign with AWS4-HMAC-SHA256."
	f := incomplete(message).s3("NotImplemented", message)
	f.s3Status = http.StatusNotImplemented
	return f
}

// failMechanism refuses an Authorization header that is not Signature Version
// 4: Signature Version 2 ("AWS"), Basic, Bearer….
func failMechanism(scheme string) *Failure {
	f := failAnonymous()
	f.anonymous = false
	f.s3Status = http.StatusBadRequest
	if scheme == "AWS" {
		return f.s3("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	}
	return f.s3("InvalidArgument", "Unsupported Authorization Type")
}

func failMultipleMechanisms() *Failure {
	return incomplete("Only one authentication mechanism is allowed: the Authorization header or the X-Amz-Algorithm query parameter.").
		s3("InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
}

// mismatch is a signature that we read and do not accept.
func mismatch(message string) *Failure {
	return &Failure{
		code: "SignatureDoesNotMatch", message: message,
		s3Code: "SignatureDoesNotMatch", s3Status: http.StatusForbidden, s3Message: message,
	}
}

func failSignature(a *Authorization) *Failure {
	f := mismatch("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	f.s3Message = "The request signature we calculated does not match the signature you provided. Check your key and signing method."
	f.s3Extra = map[string]string{"AWSAccessKeyId": a.AccessKeyID, "SignatureProvided": a.Signature}
	return f
}

func failHostNotSigned() *Failure {
	f := mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	return f.s3("AccessDenied", "There were headers present in the request which were not signed").extra("HeadersNotSigned", "host")
}

func failNotSigned(headers []string) *Failure {
	names := strings.Join(headers, ", ")
	return mismatch("There were headers present in the request which were not signed: "+names).
		s3("AccessDenied", "There were headers present in the request which were not signed").extra("HeadersNotSigned", names)
}

func (f *Failure) extra(pairs ...string) *Failure {
	f.s3Extra = make(map[string]string, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		f.s3Extra[pairs[i]] = pairs[i+1]
	}
	return f
}

// failScope names everything that is wrong with the credential scope, which is
// what AWS does.
func failScope(a *Authorization, rules *Rules) *Failure {
	var all []string
	var s3Detail string
	var extra []string
	add := func(message, s3 string, pairs ...string) {
		all = append(all, message)
		if s3Detail == "" {
			s3Detail, extra = s3, pairs
		}
	}
	if !rules.allowsRegion(a) {
		add("Credential should be scoped to a valid region, not '"+a.Region+"'. ",
			fmt.Sprintf("the region '%s' is wrong; expecting '%s'", a.Region, rules.Regions[0]), "Region", rules.Regions[0])
	}
	if a.Service != rules.Service {
		add("Credential should be scoped to correct service: '"+rules.Service+"'. ",
			fmt.Sprintf(`incorrect service "%s". This endpoint belongs to "%s".`, a.Service, rules.Service))
	}
	if a.terminal != terminator {
		add("Credential should be scoped with a valid terminator: 'aws4_request', not '"+a.terminal+"'. ",
			fmt.Sprintf(`incorrect terminal "%s". This endpoint uses "aws4_request".`, a.terminal))
	}
	if date := a.timestamp[:8]; a.Date != date {
		add("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '"+a.Date+"' != '"+date+"', from '"+a.timestamp+"'. ",
			fmt.Sprintf(`invalid credential date "%s". This date is not the same as X-Amz-Date: "%s".`, a.Date, date))
	}
	f := mismatch(strings.TrimSpace(strings.Join(all, "")))
	f.s3Status = http.StatusBadRequest
	if a.Presigned {
		f.s3("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; "+s3Detail)
	} else {
		f.s3("AuthorizationHeaderMalformed", "The authorization header is malformed; "+s3Detail)
	}
	return f.extra(extra...)
}

func failEarly(a *Authorization, now time.Time, skew time.Duration) *Failure {
	f := mismatch(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %d min.)",
		a.timestamp, now.Add(skew).Format(timeFormat), now.Format(timeFormat), skew/time.Minute))
	if a.Presigned {
		return f.s3("AccessDenied", "Request is not valid yet").extra("X-Amz-Date", a.timestamp, "ServerTime", now.Format(time.RFC3339))
	}
	return f.skewed(a, now, skew)
}

func failLate(a *Authorization, now time.Time, limit time.Duration) *Failure {
	f := mismatch(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %d min.)",
		a.timestamp, now.Add(-limit).Format(timeFormat), now.Format(timeFormat), limit/time.Minute))
	if a.Presigned {
		return f.s3("AccessDenied", "Request has expired").extra(
			"X-Amz-Expires", strconv.Itoa(int(limit/time.Second)),
			"Expires", a.time.Add(limit).Format(time.RFC3339),
			"ServerTime", now.Format(time.RFC3339))
	}
	return f.skewed(a, now, limit)
}

func (f *Failure) skewed(a *Authorization, now time.Time, limit time.Duration) *Failure {
	return f.s3("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.").extra(
		"RequestTime", a.timestamp, "ServerTime", now.Format(time.RFC3339),
		"MaxAllowedSkewMilliseconds", strconv.Itoa(int(limit/time.Millisecond)))
}

// s3Only is a failure that only S3's payload forms can meet.
func s3Only(status int, code, message string) *Failure {
	return &Failure{code: "IncompleteSignature", message: message, s3Code: code, s3Status: status, s3Message: message}
}
