package iam

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

var (
	accountIDPattern = regexp.MustCompile(`^\d{12}$`)
	principalARN     = regexp.MustCompile(`^arn:aws[a-z-]*:(?:iam|sts)::(\d{12}):(root|user/.+|role/.+|assumed-role/.+|federated-user/.+)$`)
	servicePattern   = regexp.MustCompile(`^[a-z0-9.-]+\.(?:amazonaws\.com(?:\.cn)?|amazon\.com|aws\.internal)$`)
)

// checkTrustPolicy checks the document that says who may assume a role.
func (s *Service) checkTrustPolicy(text string) error {
	d, err := parseDocument(text)
	if err != nil {
		return err
	}
	if err := d.checkStatements(); err != nil {
		return err
	}
	for _, st := range d.Statement {
		switch {
		case st.Resource != nil || st.NotResource != nil:
			return malformed("Has prohibited field Resource")
		case st.Principal == nil && st.NotPrincipal == nil:
			return malformed("Missing required field Principal")
		case slices.ContainsFunc(slices.Concat(st.Action, st.NotAction), func(a string) bool { return a != "*" && !hasPrefixFold(a, "sts:") }):
			return malformed("AssumeRole policy may only specify STS AssumeRole actions.")
		}
		for _, p := range []*principals{st.Principal, st.NotPrincipal} {
			if err := s.checkPrincipals(p); err != nil {
				return err
			}
		}
	}
	if documentSize(text) > maxTrustPolicySize {
		return quotaExceeded("ACLSizePerRole", maxTrustPolicySize)
	}
	return nil
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// checkPrincipals checks the principals of a trust policy. Those of this
// account must exist.
func (s *Service) checkPrincipals(p *principals) error {
	if p == nil || p.all {
		return nil
	}
	for kind, list := range p.byKind {
		for _, v := range list {
			valid := true
			switch kind {
			case "AWS":
				valid = s.principalExists(v)
			case "Service":
				valid = servicePattern.MatchString(v)
			case "Federated":
				valid = v != ""
			default:
				return malformed("Syntax errors in policy.")
			}
			if !valid {
				return malformed(`Invalid principal in policy: "%s":"%s"`, strings.ToUpper(kind), v)
			}
		}
	}
	return nil
}

// principalExists tells whether an AWS principal may be named: it must exist if
// it is of this account, and be well formed otherwise.
func (s *Service) principalExists(v string) bool {
	if v == "*" || accountIDPattern.MatchString(v) {
		return true
	}
	m := principalARN.FindStringSubmatch(v)
	if m == nil {
		return false
	}
	kind, rest, _ := strings.Cut(m[2], "/")
	if m[1] != s.accountID {
		return true
	}
	name := rest[strings.LastIndexByte(rest, '/')+1:]
	switch kind {
	case "user":
		u, ok := s.users.records.Get(keyOf(name))
		return ok && s.userARN(&u.Value) == v
	case "role":
		_, ok := s.roleByARN(v)
		return ok
	case "assumed-role":
		name, _, _ := strings.Cut(rest, "/")
		_, ok := s.roles.records.Get(keyOf(name))
		return ok
	}
	return true
}

// AssumeRole decides whether a request may assume a role, by the role's trust
// policy, and returns how long its sessions may last. As AWS does, it does not
// tell a role that does not exist from one that may not be assumed.
//
// Other than in AWS the root user may assume roles that trust the account: its
// key is the one that everybody starts with here.
func (s *Service) AssumeRole(r *aws.Request, roleARN, sessionName, externalID string) (time.Duration, error) {
	denied := &aws.Error{
		Code: "AccessDenied", Status: http.StatusForbidden,
		Message: fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", r.Caller.ARN, roleARN),
	}
	target, ok := s.roleByARN(roleARN)
	if !ok {
		return 0, denied
	}
	d, err := parseDocument(target.Trust)
	if err != nil {
		return 0, fmt.Errorf("trust policy of %s: %w", roleARN, err) // was checked when it was stored
	}
	a := attempt{principals: s.principalNames(r.Caller), keys: map[string]string{
		"aws:principalarn":     s.principalARN(r.Caller),
		"aws:principalaccount": r.Caller.AccountID,
		"aws:userid":           r.Caller.UserID,
		"aws:sourceip":         r.SourceIP,
		"aws:requestedregion":  r.Region,
		"sts:rolesessionname":  sessionName,
	}}
	if externalID != "" {
		a.keys["sts:externalid"] = externalID
	}
	if !a.allowedBy(d.Statement) {
		return 0, denied
	}
	return time.Duration(target.MaxSession) * time.Second, nil
}

// callersRole returns the role of a caller who uses a role's session.
func (s *Service) callersRole(caller aws.Identity) (*role, bool) {
	_, rest, ok := strings.Cut(caller.ARN, ":assumed-role/")
	if !ok {
		return nil, false
	}
	name, _, _ := strings.Cut(rest, "/")
	item, ok := s.roles.records.Get(keyOf(name))
	return &item.Value, ok
}

// principalARN is a caller's value of aws:PrincipalArn.
func (s *Service) principalARN(caller aws.Identity) string {
	if r, ok := s.callersRole(caller); ok {
		return s.roleARN(r)
	}
	return caller.ARN
}

// principalNames are the ways in which a policy may name a caller. Naming the
// account leaves the decision to the policies of its principals, which are not
// evaluated yet; the Authorizer has let the caller through.
func (s *Service) principalNames(caller aws.Identity) []string {
	names := []string{caller.ARN, caller.AccountID, "arn:aws:iam::" + caller.AccountID + ":root", "*"}
	if r, ok := s.callersRole(caller); ok {
		names = append(names, s.roleARN(r))
	}
	return names
}

// attempt is one request to assume a role, as statements see it.
type attempt struct {
	principals []string
	service    string            // principal of a service that asks; empty: none does
	keys       map[string]string // values of condition keys, by lower-case name
}

// allowedBy tells whether statements allow the request: one does, and none denies
// it.
func (a *attempt) allowedBy(statements []statement) (allowed bool) {
	for _, st := range statements {
		deny := st.Effect == "Deny"
		if !a.matches(&st, deny) {
			continue
		}
		if deny {
			return false
		}
		allowed = true
	}
	return allowed
}

// matches tells whether a statement applies. What it cannot judge (elements
// and conditions beyond those here) it takes to apply where that denies, and
// not to apply where it would allow.
func (a *attempt) matches(st *statement, deny bool) bool {
	switch {
	case st.NotPrincipal != nil:
		return deny
	case !a.isPrincipal(st.Principal):
		return false
	case st.NotAction != nil:
		if slices.ContainsFunc(st.NotAction, isAssumeRole) {
			return false
		}
	case !slices.ContainsFunc(st.Action, isAssumeRole):
		return false
	}
	for op, tests := range st.Condition {
		for key, want := range tests {
			met, known := a.condition(op, key, want)
			if !known {
				met = deny
			}
			if !met {
				return false
			}
		}
	}
	return true
}

func isAssumeRole(action string) bool { return like(strings.ToLower(action), "sts:assumerole") }

func (a *attempt) isPrincipal(p *principals) bool {
	if p.all {
		return true
	}
	if a.service != "" {
		return slices.Contains(p.byKind["Service"], a.service)
	}
	return slices.ContainsFunc(p.byKind["AWS"], func(v string) bool { return slices.Contains(a.principals, v) })
}

// condition evaluates one condition, and tells whether it is one that we know.
func (a *attempt) condition(op, key string, want scalars) (met, known bool) {
	value, present := a.keys[strings.ToLower(key)]
	if base, ok := strings.CutSuffix(op, "IfExists"); ok {
		op = base
		// A key that is none of ours may be there for all we know.
		if !present && strings.EqualFold(key, "sts:ExternalId") {
			return true, true
		}
	}
	if !present && !strings.EqualFold(key, "sts:ExternalId") {
		return false, false
	}
	is := func(equal func(pattern, value string) bool) bool {
		return present && slices.ContainsFunc(want, func(w string) bool { return equal(w, value) })
	}
	exactly := func(w, v string) bool { return w == v }
	switch op {
	case "StringEquals":
		return is(exactly), true
	case "StringNotEquals":
		return !is(exactly), true
	case "StringEqualsIgnoreCase":
		return is(strings.EqualFold), true
	case "StringNotEqualsIgnoreCase":
		return !is(strings.EqualFold), true
	case "StringLike", "ArnLike", "ArnEquals":
		return is(like), true
	case "StringNotLike", "ArnNotLike", "ArnNotEquals":
		return !is(like), true
	case "IpAddress":
		return is(inNetwork), true
	case "NotIpAddress":
		return !is(inNetwork), true
	case "Null":
		return is(func(w, _ string) bool { return w == "false" }) || !present && slices.Contains(want, "true"), true
	}
	return false, false
}

// like matches a value with a pattern in which * stands for any characters and
// ? for one.
func like(pattern, value string) bool {
	star, mark := -1, 0
	p, v := 0, 0
	for v < len(value) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, v
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == value[v]):
			p++
			v++
		case star >= 0:
			mark++
			p, v = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// inNetwork tells whether an address is in a network, or is the address.
func inNetwork(network, address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	if prefix, err := netip.ParsePrefix(network); err == nil {
		return prefix.Contains(ip)
	}
	other, err := netip.ParseAddr(network)
	return err == nil && other == ip
}

// TrustsService tells whether a service, by its principal such as
// lambda.amazonaws.com, may assume a role. Conditions that depend on the request
// are taken not to be met.
func (s *Service) TrustsService(roleARN, service string) bool {
	target, ok := s.roleByARN(roleARN)
	if !ok {
		return false
	}
	d, err := parseDocument(target.Trust)
	if err != nil {
		return false // was checked when it was stored
	}
	a := attempt{service: service}
	return a.allowedBy(d.Statement)
}
