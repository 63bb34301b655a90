package lambda

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
)

// maxPolicy is the largest resource policy in bytes (Lambda quotas).
const maxPolicy = 20_480

// statement is one statement of a resource policy, in the form and order that
// AWS gives it.
type statement struct {
	Sid       string
	Effect    string
	Principal principal
	Action    string
	Resource  string
	Condition *condition `json:",omitempty"`
}

type condition struct {
	StringEquals map[string]string `json:",omitempty"`
	Bool         map[string]string `json:",omitempty"`
	ArnLike      map[string]string `json:",omitempty"`
}

// principal is "*", a service or an AWS account or identity.
type principal struct {
	Any     bool
	Service string
	AWS     string
}

// MarshalJSON writes "*", {"Service":…} or {"AWS":…}.
func (p principal) MarshalJSON() ([]byte, error) {
	switch {
	case p.Any:
		return []byte(`"*"`), nil
	case p.Service != "":
		return json.Marshal(map[string]string{"Service": p.Service})
	default:
		return json.Marshal(map[string]string{"AWS": p.AWS})
	}
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *principal) UnmarshalJSON(b []byte) error {
	if string(b) == `"*"` {
		*p = principal{Any: true}
		return nil
	}
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*p = principal{Service: m["Service"], AWS: m["AWS"]}
	return nil
}

var (
	accountPattern          = regexp.MustCompile(`^\d{12}$`)
	servicePrincipalPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*\.(amazonaws\.com|amazonaws\.com\.cn|amazon\.com)$`)
	identityPattern         = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:(iam|sts)::\d{12}:(root|(user|role|federated-user|assumed-role)/.+)$`)
)

func parsePrincipal(s string) (principal, error) {
	switch {
	case s == "*":
		return principal{Any: true}, nil
	case accountPattern.MatchString(s):
		return principal{AWS: "arn:aws:iam::" + s + ":root"}, nil
	case identityPattern.MatchString(s):
		return principal{AWS: s}, nil
	case servicePrincipalPattern.MatchString(s):
		return principal{Service: s}, nil
	}
	return principal{}, invalidParameter("The provided principal was invalid. Please check the principal and try again.")
}

// newStatement makes the statement that AddPermission asks for.
func newStatement(in *api.AddPermissionInput, resource string) (statement, error) {
	p, err := parsePrincipal(aws.Value(in.Principal))
	if err != nil {
		return statement{}, err
	}
	c := condition{StringEquals: map[string]string{}, Bool: map[string]string{}, ArnLike: map[string]string{}}
	set := func(m map[string]string, key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	set(c.StringEquals, "AWS:SourceAccount", aws.Value(in.SourceAccount))
	set(c.StringEquals, "lambda:EventSourceToken", aws.Value(in.EventSourceToken))
	set(c.StringEquals, "lambda:FunctionUrlAuthType", string(in.FunctionUrlAuthType))
	set(c.StringEquals, "aws:PrincipalOrgID", aws.Value(in.PrincipalOrgID))
	set(c.ArnLike, "AWS:SourceArn", aws.Value(in.SourceArn))
	if aws.Value(in.InvokedViaFunctionUrl) {
		c.Bool["lambda:InvokedViaFunctionUrl"] = "true"
	}
	st := statement{Sid: aws.Value(in.StatementId), Effect: "Allow", Principal: p, Action: aws.Value(in.Action), Resource: resource}
	if len(c.StringEquals)+len(c.Bool)+len(c.ArnLike) > 0 {
		st.Condition = &c
	}
	return st, nil
}

// policyText is a resource policy as GetPolicy shows it.
func policyText(statements []statement) (string, error) {
	return compactJSON(struct {
		Version   string
		ID        string `json:"Id"`
		Statement []statement
	}{"2012-10-17", "default", statements})
}

// compactJSON leaves characters such as & as they are.
func compactJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// policyHolder is what a resource policy can be attached to: a function, a
// published version or an alias, which share a revision with their policy, or a
// version of a layer.
type policyHolder struct {
	policy   []statement
	revision string
	getter   string // the operation that returns the latest revision; GetPolicy where empty
	// write stores the policy together with a new revision.
	write func(ctx context.Context, policy []statement, revision string) error
}

// policyHolder finds the holder that ref names, or returns nil.
func (s *Service) policyHolder(e *entry, ref reference) *policyHolder {
	h := s.holder(e, ref.qualifier)
	if h == nil {
		return nil
	}
	return &policyHolder{policy: h.Policy, revision: h.revision, write: func(ctx context.Context, policy []statement, revision string) error {
		h.Policy = policy
		return h.put(ctx, h.attachments, revision)
	}}
}

// holderNotFound is the error where ref names nothing.
func holderNotFound(ref reference) error {
	if isAlias(ref.qualifier) {
		return aliasNotFound(ref.qualified())
	}
	return functionNotFound(ref.qualified())
}

// AddPermission implements lambda.API.
func (s *Service) AddPermission(ctx context.Context, in *api.AddPermissionInput) (*api.AddPermissionOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), aws.Value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	if ref.qualifier == function.Latest {
		return nil, invalidParameter("We currently do not support adding policies for $LATEST.")
	}
	added, err := newStatement(in, ref.qualified())
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	h := s.policyHolder(e, ref)
	if h == nil {
		return nil, holderNotFound(ref)
	}
	policy, shown, err := h.add(added, in.RevisionId)
	if err != nil {
		return nil, err
	}
	if err := s.writePolicy(ctx, e, h, policy); err != nil {
		return nil, err
	}
	return &api.AddPermissionOutput{Statement: aws.Ptr(shown)}, nil
}

// add returns the policy with one more statement, and the statement's text.
func (h *policyHolder) add(added statement, revision *string) (policy []statement, shown string, err error) {
	if slices.ContainsFunc(h.policy, func(st statement) bool { return st.Sid == added.Sid }) {
		return nil, "", conflict("The statement id (%s) provided already exists. Please provide a new statement id, or remove the existing statement.", added.Sid)
	}
	if err := h.check(revision); err != nil {
		return nil, "", err
	}
	policy = append(slices.Clip(h.policy), added)
	text, err := policyText(policy)
	if err != nil {
		return nil, "", internal(err)
	}
	if len(text) > maxPolicy {
		return nil, "", byUser(api.NewPolicyLengthExceededException("The final policy size (%d) is bigger than the limit (%d).", len(text), maxPolicy))
	}
	shown, err = compactJSON(added)
	return policy, shown, internal(err)
}

// remove returns the policy without a statement.
func (h *policyHolder) remove(sid string, revision *string) ([]statement, error) {
	if len(h.policy) == 0 {
		return nil, noPolicy()
	}
	i := slices.IndexFunc(h.policy, func(st statement) bool { return st.Sid == sid })
	if i < 0 {
		return nil, notFound("Statement %s is not found in resource policy.", sid)
	}
	if err := h.check(revision); err != nil {
		return nil, err
	}
	return slices.Concat(h.policy[:i], h.policy[i+1:]), nil
}

func noPolicy() error { return notFound("No policy is associated with the given resource.") }

// RemovePermission implements lambda.API.
func (s *Service) RemovePermission(ctx context.Context, in *api.RemovePermissionInput) (*api.RemovePermissionOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), aws.Value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	e := s.entries.get(ref.functionKey)
	if e == nil {
		return nil, notFound("No policy found for: %s", ref.arn)
	}
	h := s.policyHolder(e, ref)
	if h == nil && ref.qualifier != function.Latest {
		return nil, holderNotFound(ref)
	}
	if h == nil {
		return nil, noPolicy() // $LATEST has none
	}
	policy, err := h.remove(aws.Value(in.StatementId), in.RevisionId)
	if err != nil {
		return nil, err
	}
	if err := s.writePolicy(ctx, e, h, policy); err != nil {
		return nil, err
	}
	return &api.RemovePermissionOutput{}, nil
}

// GetPolicy implements lambda.API.
func (s *Service) GetPolicy(ctx context.Context, in *api.GetPolicyInput) (*api.GetPolicyOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), aws.Value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	e := s.entries.get(ref.functionKey)
	h := s.policyHolder(e, ref)
	if h == nil {
		return nil, noSuchResource()
	}
	policy := slices.Concat(h.policy, s.replicaStatements(e, ref))
	if len(policy) == 0 {
		return nil, noSuchResource()
	}
	text, err := policyText(policy)
	if err != nil {
		return nil, internal(err)
	}
	return &api.GetPolicyOutput{Policy: aws.Ptr(text), RevisionId: aws.Ptr(h.revision)}, nil
}

func (h *policyHolder) check(revision *string) error {
	if revision != nil && *revision != h.revision {
		return preconditionFailed(cmp.Or(h.getter, "GetPolicy"))
	}
	return nil
}

func (s *Service) writePolicy(ctx context.Context, e *entry, h *policyHolder, policy []statement) error {
	ctx, cancel := writeContext(ctx)
	defer cancel()
	err := h.write(ctx, policy, newID())
	s.reload(e.key)
	return internal(err)
}
