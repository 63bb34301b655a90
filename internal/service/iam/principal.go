package iam

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/state"
)

// principal is what users and roles have in common.
type principal struct {
	Name     string
	ID       string
	Path     string
	Created  time.Time
	Tags     tags
	Boundary string            `json:",omitempty"` // ARN of a managed policy
	Attached []string          `json:",omitempty"` // ARNs of managed policies
	Inline   map[string]string `json:",omitempty"` // documents by policy name
}

// holders are all users, or all roles.
type holders[T any] struct {
	records    *state.Collection[T]
	principal  func(*T) *principal
	kind       string // as messages name it
	inlineSize int    // of all inline policies together
}

// find finds the record that has a name.
func (h *holders[T]) find(name *string) (T, error) {
	item, ok := h.records.Get(keyOf(aws.Value(name)))
	if !ok || h.principal(&item.Value).Name != *name {
		var none T
		return none, h.noSuch(aws.Value(name))
	}
	return item.Value, nil
}

func (h *holders[T]) noSuch(name string) error {
	return iam.NewNoSuchEntityException("The %s with name %s cannot be found.", h.kind, name)
}

// modify changes the record that has a name.
func (h *holders[T]) modify(ctx context.Context, name *string, change func(*T) error) (T, error) {
	if _, err := h.find(name); err != nil {
		var none T
		return none, err
	}
	item, err := h.records.Modify(ctx, keyOf(*name), change)
	return item.Value, err
}

// modifyPrincipal changes what users and roles have in common.
func (h *holders[T]) modifyPrincipal(ctx context.Context, name *string, change func(*principal) error) error {
	_, err := h.modify(ctx, name, func(t *T) error { return change(h.principal(t)) })
	return err
}

// list returns a page of the principals whose path begins with a prefix.
func (h *holders[T]) list(pathPrefix, marker *string, max *int32) (page[T], error) {
	var all []T
	for _, item := range h.records.List("") {
		if strings.HasPrefix(h.principal(&item.Value).Path, aws.Value(pathPrefix)) {
			all = append(all, item.Value)
		}
	}
	return paginate(all, func(t T) string { return keyOf(h.principal(&t).Name) }, marker, max)
}

// count adds to how many principals each policy is attached, and how many it
// bounds.
func (h *holders[T]) count(u usages) {
	for _, item := range h.records.List("") {
		p := h.principal(&item.Value)
		for _, arn := range p.Attached {
			u[arn] = usage{u[arn].attached + 1, u[arn].bounded}
		}
		if p.Boundary != "" {
			u[p.Boundary] = usage{u[p.Boundary].attached, u[p.Boundary].bounded + 1}
		}
	}
}

// deletable checks that nothing hangs on a principal any more.
func (p *principal) deletable() error {
	switch {
	case len(p.Inline) > 0:
		return iam.NewDeleteConflictException("Cannot delete entity, must delete policies first.")
	case len(p.Attached) > 0:
		return iam.NewDeleteConflictException("Cannot delete entity, must detach all policies first.")
	}
	return nil
}

func (p *principal) boundary() *iam.AttachedPermissionsBoundary {
	if p.Boundary == "" {
		return nil
	}
	return &iam.AttachedPermissionsBoundary{
		PermissionsBoundaryType: "Policy", // what AWS sends; the model's enumeration says otherwise
		PermissionsBoundaryArn:  &p.Boundary,
	}
}

// attach attaches a managed policy. Doing it again changes nothing.
func (s *Service) attach(kind string, arn *string) func(*principal) error {
	return func(p *principal) error {
		if _, ok := s.findPolicy(*arn); !ok {
			return iam.NewNoSuchEntityException("Policy %s does not exist or is not attachable.", *arn)
		}
		if slices.Contains(p.Attached, *arn) {
			return nil
		}
		if len(p.Attached) >= maxAttached {
			return quotaExceeded("PoliciesPer"+strings.ToUpper(kind[:1])+kind[1:], maxAttached)
		}
		p.Attached = append(p.Attached, *arn)
		return nil
	}
}

// detach takes a managed policy away.
func detach(arn *string) func(*principal) error {
	return func(p *principal) error {
		i := slices.Index(p.Attached, *arn)
		if i < 0 {
			return iam.NewNoSuchEntityException("Policy %s was not found.", *arn)
		}
		p.Attached = slices.Delete(p.Attached, i, i+1)
		return nil
	}
}

// attached lists the managed policies of a principal.
func (s *Service) attached(p *principal, pathPrefix, marker *string, max *int32) (page[*policy], error) {
	var all []*policy
	for _, arn := range p.Attached {
		if policy, ok := s.findPolicy(arn); ok && strings.HasPrefix(policy.Path, aws.Value(pathPrefix)) {
			all = append(all, policy)
		}
	}
	return paginate(all, (*policy).sortKey, marker, max)
}

func attachedPolicy(p *policy) *iam.AttachedPolicy {
	return &iam.AttachedPolicy{PolicyName: &p.Name, PolicyArn: &p.ARN}
}

// putInline sets an inline policy.
func (h *holders[T]) putInline(name, document *string) func(*principal) error {
	return func(p *principal) error {
		size := documentSize(*document)
		for other, d := range p.Inline {
			if other != *name {
				size += documentSize(d)
			}
		}
		if size > h.inlineSize {
			return iam.NewLimitExceededException("Maximum policy size of %d bytes exceeded for %s %s", h.inlineSize, h.kind, p.Name)
		}
		if p.Inline == nil {
			p.Inline = map[string]string{}
		}
		p.Inline[*name] = *document
		return nil
	}
}

// inline returns the document of an inline policy.
func (h *holders[T]) inline(p *principal, name *string) (*string, error) {
	document, ok := p.Inline[*name]
	if !ok {
		return nil, iam.NewNoSuchEntityException("The %s policy with name %s cannot be found.", h.kind, *name)
	}
	return encodeDocument(document), nil
}

// deleteInline removes an inline policy.
func (h *holders[T]) deleteInline(name *string) func(*principal) error {
	return func(p *principal) error {
		if _, err := h.inline(p, name); err != nil {
			return err
		}
		delete(p.Inline, *name)
		return nil
	}
}

func inlineNames(p *principal, marker *string, max *int32) (page[string], error) {
	return paginate(slices.Collect(maps.Keys(p.Inline)), self, marker, max)
}
