package cloudfront

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// maxPolicies is how many custom policies of each kind an account may have
// (CloudFront quotas).
const maxPolicies = 20

// policies are the policies of one kind: custom ones, and those that AWS gives
// everybody.
type policies[C any] struct {
	kind[C]
	managed []record[C] // in the order of their ids
	name    func(*C) string
	// check completes a configuration and says what is wrong with it.
	check func(*C) error
	// of returns the id of the policy that a behaviour names, nil for none.
	of func(*api.CacheBehavior) *string

	exists, tooMany, inUse func(string, ...any) *aws.Error
}

// find returns a policy, managed or not.
func (p *policies[C]) find(id string) (record[C], bool) {
	if i := slices.IndexFunc(p.managed, func(m record[C]) bool { return m.ID == id }); i >= 0 {
		return p.managed[i], true
	}
	return p.kind.find(id)
}

func (p *policies[C]) get(id *string) (record[C], error) {
	if r, ok := p.find(aws.Value(id)); ok {
		return r, nil
	}
	return record[C]{}, p.missing
}

func (p *policies[C]) isManaged(id *string) bool {
	return slices.ContainsFunc(p.managed, func(m record[C]) bool { return m.ID == aws.Value(id) })
}

// named tells whether another policy than that with the id has the name.
func (p *policies[C]) named(name, id string) bool {
	_, ok := p.first(func(r *record[C]) bool { return r.ID != id && p.name(&r.Resource) == name })
	return ok
}

// names tells whether a distribution names a policy.
func (p *policies[C]) names(c *api.DistributionConfig, id string) bool {
	return slices.ContainsFunc(behaviours(c), func(b *api.CacheBehavior) bool { return aws.Value(p.of(b)) == id })
}

func (p *policies[C]) create(ctx context.Context, s *Service, c *C) (record[C], error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := p.checked(c, ""); err != nil {
		return record[C]{}, err
	}
	if p.collection.Len() >= maxPolicies {
		return record[C]{}, p.tooMany("You have reached the maximum number of custom policies of this kind for this AWS account.")
	}
	return p.kind.create(ctx, uuid.NewString(), *c)
}

func (p *policies[C]) checked(c *C, id string) error {
	if err := checkQuantities(c); err != nil {
		return err
	}
	name := p.name(c)
	if !policyName(name) {
		return api.NewInvalidArgument("The parameter Name is not valid: it has 1 to 128 letters, digits, hyphens and underscores.")
	}
	if strings.HasPrefix(name, "Managed-") {
		return api.NewInvalidArgument("The parameter Name cannot begin with Managed-.")
	}
	if err := p.check(c); err != nil {
		return err
	}
	if p.named(name, id) {
		return p.exists("A policy with the same name already exists: %s", name)
	}
	return nil
}

// policyName tells whether a name is one of a policy.
func policyName(name string) bool {
	return len(name) > 0 && len(name) <= 128 && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
}

func (p *policies[C]) update(ctx context.Context, s *Service, id, ifMatch *string, c *C) (record[C], error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if p.isManaged(id) {
		return record[C]{}, api.NewIllegalUpdate("The update contains modifications that are not allowed: managed policies cannot be changed.")
	}
	old, err := p.current(id, ifMatch)
	if err != nil {
		return old, err
	}
	if err := p.checked(c, old.ID); err != nil {
		return old, err
	}
	r, err := p.kind.update(ctx, old, *c)
	if err != nil {
		return r, err
	}
	return r, s.republish(ctx, func(c *api.DistributionConfig) bool { return p.names(c, r.ID) })
}

func (p *policies[C]) delete(ctx context.Context, s *Service, id, ifMatch *string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if p.isManaged(id) {
		return api.NewIllegalDelete("You cannot delete a managed policy.")
	}
	r, err := p.current(id, ifMatch)
	if err != nil {
		return err
	}
	if d, ok := s.distributions.first(func(d *distributionRecord) bool { return p.names(&d.Resource.Config, r.ID) }); ok {
		return p.inUse("Cannot delete the policy because it is attached to one or more cache behaviors, of distribution %s.", d.ID)
	}
	return p.remove(ctx, r.ID)
}

// list returns a page of the policies of a type: managed, custom or, empty, both.
func (p *policies[C]) list(policyType string, marker, maxItems *string) (*page[record[C]], error) {
	var all []record[C]
	if policyType != "custom" {
		all = append(all, p.managed...)
	}
	if policyType != "managed" {
		all = append(all, p.all()...)
	}
	slices.SortFunc(all, func(a, b record[C]) int { return strings.Compare(a.ID, b.ID) })
	return paginate(all, func(r record[C]) string { return r.ID }, marker, maxItems)
}

// typeOf is the type of a policy as lists show it.
func (p *policies[C]) typeOf(id string) string {
	if p.isManaged(&id) {
		return "managed"
	}
	return "custom"
}
