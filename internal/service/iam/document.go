package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
)

// encodeDocument is a document as IAM hands it out: percent-encoded (RFC 3986).
func encodeDocument(document string) *string {
	return aws.Ptr(strings.ReplaceAll(url.QueryEscape(document), "+", "%20"))
}

// documentSize is what counts towards quotas: characters without white space.
func documentSize(document string) int {
	n := 0
	for _, c := range document {
		if !unicode.IsSpace(c) {
			n++
		}
	}
	return n
}

// document is a policy document.
type document struct {
	Version   string
	ID        string `json:"Id"`
	Statement statements
}

// statement is a statement of a policy document.
type statement struct {
	Sid          string
	Effect       string
	Principal    *principals
	NotPrincipal *principals
	Action       values
	NotAction    values
	Resource     values
	NotResource  values
	Condition    map[string]map[string]scalars
}

// UnmarshalJSON takes the names of elements in their case only, which
// encoding/json does not mind.
func (d *document) UnmarshalJSON(b []byte) error {
	type plain document
	return errors.Join(checkElements(b, "Version", "Id", "Statement"), unmarshalStrict(b, (*plain)(d)))
}

// UnmarshalJSON is as document's.
func (s *statement) UnmarshalJSON(b []byte) error {
	type plain statement
	return errors.Join(
		checkElements(b, "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"),
		unmarshalStrict(b, (*plain)(s)))
}

func checkElements(b []byte, names ...string) error {
	var elements map[string]json.RawMessage
	if err := json.Unmarshal(b, &elements); err != nil {
		return err
	}
	for name := range elements {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown element %q", name)
		}
	}
	return nil
}

// checkNames refuses objects with the same name twice, of which readers may
// take either.
func checkNames(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if seen[name.(string)] {
				return fmt.Errorf("element %q twice", name)
			}
			seen[name.(string)] = true
		}
		if err := checkNames(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// statements are a list, or one that stands alone.
type statements []statement

func (s *statements) UnmarshalJSON(b []byte) error { return unmarshalList(b, (*[]statement)(s)) }

// values are a list of strings, or one that stands alone.
type values []string

func (v *values) UnmarshalJSON(b []byte) error { return unmarshalList(b, (*[]string)(v)) }

// unmarshalList decodes a list or its only item, strictly. A null is refused:
// it is not a list, and would pass for an element that is missing.
func unmarshalList[T any](b []byte, list *[]T) error {
	if bytes.Equal(b, []byte("null")) {
		return errors.New("null")
	}
	if b[0] == '[' {
		*list = []T{} // an empty list is there, other than a missing one
		return unmarshalStrict(b, list)
	}
	var one T
	if err := unmarshalStrict(b, &one); err != nil {
		return err
	}
	*list = []T{one}
	return nil
}

// scalars are the values of a condition: strings, numbers and booleans, as text.
type scalars []string

func (s *scalars) UnmarshalJSON(b []byte) error {
	var list []any
	if err := unmarshalList(b, &list); err != nil {
		return err
	}
	for _, v := range list {
		switch v := v.(type) {
		case string:
			*s = append(*s, v)
		case bool, json.Number:
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			*s = append(*s, string(text))
		default:
			return errors.New("not a scalar")
		}
	}
	return nil
}

// principals are "*", or lists by kind (AWS, Service, Federated).
type principals struct {
	all    bool
	byKind map[string]values
}

func (p *principals) UnmarshalJSON(b []byte) error {
	if string(b) == `"*"` {
		p.all = true
		return nil
	}
	return unmarshalStrict(b, &p.byKind)
}

// unmarshalStrict refuses unknown fields and keeps numbers as they are.
func unmarshalStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data after the document")
	}
	return nil
}

func malformed(format string, args ...any) error {
	return iam.NewMalformedPolicyDocumentException(format, args...)
}

// conditionOperators are the operators of conditions, without ForAnyValue:,
// ForAllValues: and IfExists.
var conditionOperators = []string{
	"StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike",
	"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals",
	"DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals",
	"Bool", "BinaryEquals", "IpAddress", "NotIpAddress", "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike", "Null",
}

func baseOperator(op string) string {
	op = strings.TrimPrefix(strings.TrimPrefix(op, "ForAnyValue:"), "ForAllValues:")
	return strings.TrimSuffix(op, "IfExists")
}

// parseDocument reads a policy document of any kind and checks what all kinds
// have in common, in the order in which AWS finds fault.
func parseDocument(text string) (*document, error) {
	const syntax = "Syntax errors in policy."
	d := new(document)
	// The second reads the names, of a document that the first has found to be
	// JSON of no great depth.
	if unmarshalStrict([]byte(text), d) != nil || checkNames(json.NewDecoder(strings.NewReader(text))) != nil || len(d.Statement) == 0 {
		return nil, malformed(syntax)
	}
	if d.Version != "" && d.Version != "2008-10-17" && d.Version != "2012-10-17" {
		return nil, malformed(syntax)
	}
	for _, s := range d.Statement {
		switch {
		case s.Effect == "", !strings.EqualFold(s.Effect, "Allow") && !strings.EqualFold(s.Effect, "Deny"),
			s.Action != nil && s.NotAction != nil, s.Resource != nil && s.NotResource != nil, s.Principal != nil && s.NotPrincipal != nil:
			return nil, malformed(syntax)
		}
		for op := range s.Condition {
			if !slices.Contains(conditionOperators, baseOperator(op)) {
				return nil, malformed(syntax)
			}
		}
	}
	return d, nil
}

var sidPattern = regexp.MustCompile(`^[0-9A-Za-z]*$`)

// checkStatements checks what identity and trust policies have in common.
func (d *document) checkStatements() error {
	sids := map[string]bool{}
	for _, s := range d.Statement {
		switch {
		case s.Effect != "Allow" && s.Effect != "Deny":
			return malformed("The policy failed legacy parsing")
		case !sidPattern.MatchString(s.Sid):
			return malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
		case s.Sid != "" && sids[s.Sid]:
			return malformed("Statement IDs (SID) in a single policy must be unique.")
		}
		sids[s.Sid] = true
	}
	for _, s := range d.Statement {
		actions := slices.Concat(s.Action, s.NotAction)
		if len(actions) == 0 {
			return malformed("Policy statement must contain actions.")
		}
	}
	for _, s := range d.Statement {
		for _, action := range slices.Concat(s.Action, s.NotAction) {
			if err := checkAction(action); err != nil {
				return err
			}
		}
	}
	return nil
}

var vendorPattern = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)

// checkAction checks an action such as lambda:InvokeFunction.
func checkAction(action string) error {
	vendor, name, found := strings.Cut(action, ":")
	switch {
	case action == "*":
	case !found:
		return malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
	case strings.Contains(name, ":"):
		return malformed("Actions/Condition can contain only one colon.")
	case vendor != "*" && !vendorPattern.MatchString(vendor):
		return malformed("Vendor %s is not valid", vendor)
	}
	return nil
}

// partitions are AWS's.
var partitions = []string{"*", "aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f", "aws-eusc"}

// checkResource checks a resource, which is "*" or an ARN.
func checkResource(resource string) error {
	if resource == "*" {
		return nil
	}
	parts := strings.SplitN(resource, ":", 6)
	part := func(i int) string {
		if i < len(parts) {
			return parts[i]
		}
		return "*"
	}
	switch {
	case len(parts) < 2:
		return malformed(`Resource %s must be in ARN format or "*".`, resource)
	case !slices.Contains(partitions, parts[1]):
		return malformed(`Partition "%s" is not valid for resource "arn:%s:%s:%s:%s:%s".`, parts[1], parts[1], part(2), part(3), part(4), part(5))
	case len(parts) == 2:
		return malformed("Resource vendor must be fully qualified and cannot contain regexes.")
	case len(parts) < 6 && strings.Contains(resource, "::"), parts[2] == "":
		return malformed("The policy failed legacy parsing")
	}
	region := part(3)
	switch {
	case parts[2] == "s3" && region != "" && region != "*" && !strings.HasPrefix(part(5), "accesspoint"):
		return malformed("Resource %s can not contain region information.", resource)
	case parts[2] == "iam" && region != "" && region != "*":
		return malformed("IAM resource %s cannot contain region information.", resource)
	}
	return nil
}

// checkIdentityPolicy checks the document of an inline policy of a user or role.
// As in SAM's own examples its Version may be missing: then it is 2008-10-17.
func checkIdentityPolicy(text string) error {
	d, err := parseDocument(text)
	if err != nil {
		return err
	}
	return d.checkIdentity()
}

// checkIdentity checks what policies for users and roles have in common.
func (d *document) checkIdentity() error {
	for _, s := range d.Statement {
		if s.Principal != nil || s.NotPrincipal != nil {
			return malformed("Policy document should not specify a principal.")
		}
	}
	if err := d.checkStatements(); err != nil {
		return err
	}
	for _, s := range d.Statement {
		resources := slices.Concat(s.Resource, s.NotResource)
		if len(resources) == 0 {
			return malformed("Policy statement must contain resources.")
		}
		for _, resource := range resources {
			if err := checkResource(resource); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkManagedPolicy checks the document of a managed policy, which must have the
// current Version.
func checkManagedPolicy(text string) error {
	d, err := parseDocument(text)
	if err != nil {
		return err
	}
	if d.Version != "2012-10-17" {
		return malformed("Policy document must be version 2012-10-17 or greater.")
	}
	if err := d.checkIdentity(); err != nil {
		return err
	}
	if documentSize(text) > maxPolicySize {
		return quotaExceeded("PolicySize", maxPolicySize)
	}
	return nil
}
