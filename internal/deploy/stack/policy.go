package stack

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// policyKinds are policies that stand by themselves. Lapwing has no groups.
var policyKinds = map[string]kind{
	"AWS::IAM::Policy": {
		properties: "PolicyName!* PolicyDocument* Roles Users", name: "PolicyName", limit: 128,
		check: checkPolicy, create: putPolicy, update: putPolicy,
		remove: func(ctx context.Context, c *call) error { return c.detach(ctx, c.props, attached{}) },
		read:   func(_ context.Context, c *call) (map[string]string, error) { return map[string]string{"": c.id}, nil },
	},
	"AWS::IAM::ManagedPolicy": {
		properties: "PolicyDocument* ManagedPolicyName! Description! Path! Roles Users", attributes: []string{"PolicyArn"},
		name: "ManagedPolicyName", limit: 128,
		check: checkPolicy,
		create: func(ctx context.Context, c *call) error {
			in := &iam.CreatePolicyInput{PolicyName: &c.id}
			if err := bind(c.only("Description", "Path"), in); err != nil {
				return err
			}
			var err error
			if in.PolicyDocument, err = c.document("PolicyDocument"); err != nil {
				return err
			}
			if _, err := c.IAM.CreatePolicy(ctx, in); err != nil {
				return err
			}
			c.made = true
			c.id = c.policyARN()
			return c.attach(ctx)
		},
		update: func(ctx context.Context, c *call) error {
			c.id = c.policyARN()
			if c.has("PolicyDocument") {
				if err := c.newPolicyVersion(ctx); err != nil {
					return err
				}
			}
			return c.attach(ctx)
		},
		remove: removeManagedPolicy,
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "PolicyArn": c.id}, nil
		},
	},
}

// attached are the roles and users that have a policy.
type attached struct{ Roles, Users []string }

func attachedTo(props map[string]any) (a attached, err error) {
	for name, list := range map[string]*[]string{"Roles": &a.Roles, "Users": &a.Users} {
		if err := bind(props[name], list); err != nil {
			return a, within(name, err)
		}
	}
	return a, nil
}

func checkPolicy(c *call) error {
	if _, err := attachedTo(c.props); err != nil {
		return err
	}
	_, err := c.document("PolicyDocument")
	return err
}

// putPolicy writes a policy into its roles and users.
func putPolicy(ctx context.Context, c *call) error {
	c.made = true // for the first of several
	doc, err := c.document("PolicyDocument")
	if err != nil {
		return err
	}
	to, err := attachedTo(c.props)
	if err != nil {
		return err
	}
	for _, role := range to.Roles {
		if _, err := c.IAM.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &role, PolicyName: &c.id, PolicyDocument: doc}); err != nil {
			return err
		}
	}
	for _, user := range to.Users {
		if _, err := c.IAM.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &user, PolicyName: &c.id, PolicyDocument: doc}); err != nil {
			return err
		}
	}
	return c.detach(ctx, c.old, to)
}

// detach takes an inline policy from those that have it by props, but for those
// that keep it.
func (c *call) detach(ctx context.Context, props map[string]any, keep attached) error {
	from, err := attachedTo(props)
	if err != nil {
		return err
	}
	for _, role := range from.Roles {
		if slices.Contains(keep.Roles, role) {
			continue
		}
		if _, err := c.IAM.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &role, PolicyName: &c.id}); err != nil && !isMissing(err) {
			return err
		}
	}
	for _, user := range from.Users {
		if slices.Contains(keep.Users, user) {
			continue
		}
		if _, err := c.IAM.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: &user, PolicyName: &c.id}); err != nil && !isMissing(err) {
			return err
		}
	}
	return nil
}

// policyARN is the ARN of a managed policy, whose name may be its ARN already.
func (c *call) policyARN() string {
	if len(c.id) > 4 && c.id[:4] == "arn:" {
		return c.id
	}
	path := c.str("Path")
	if path == "" {
		path = "/"
	}
	return c.arn("iam", "policy"+path+c.id)
}

// attach gives a managed policy to its roles and users, and takes it from those
// that had it before.
func (c *call) attach(ctx context.Context) error {
	to, err := attachedTo(c.props)
	if err != nil {
		return err
	}
	from, err := attachedTo(c.old)
	if err != nil {
		return err
	}
	for _, role := range to.Roles {
		if _, err := c.IAM.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &role, PolicyArn: &c.id}); err != nil {
			return err
		}
	}
	for _, user := range to.Users {
		if _, err := c.IAM.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &user, PolicyArn: &c.id}); err != nil {
			return err
		}
	}
	return c.release(ctx, from, to)
}

// release takes a managed policy from those that do not keep it.
func (c *call) release(ctx context.Context, from, keep attached) error {
	for _, role := range from.Roles {
		if slices.Contains(keep.Roles, role) {
			continue
		}
		if _, err := c.IAM.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: &role, PolicyArn: &c.id}); err != nil && !isMissing(err) {
			return err
		}
	}
	for _, user := range from.Users {
		if slices.Contains(keep.Users, user) {
			continue
		}
		if _, err := c.IAM.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: &user, PolicyArn: &c.id}); err != nil && !isMissing(err) {
			return err
		}
	}
	return nil
}

// maxPolicyVersions is how many versions a managed policy can have (IAM quotas).
const maxPolicyVersions = 5

// newPolicyVersion makes a new default version of a managed policy, in the place
// of the oldest if there is room for no more.
func (c *call) newPolicyVersion(ctx context.Context) error {
	doc, err := c.document("PolicyDocument")
	if err != nil {
		return err
	}
	versions, err := c.otherVersions(ctx)
	if err != nil {
		return err
	}
	if len(versions)+1 >= maxPolicyVersions {
		oldest := slices.MinFunc(versions, func(a, b types.PolicyVersion) int { return a.CreateDate.Compare(*b.CreateDate) })
		if _, err := c.IAM.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: &c.id, VersionId: oldest.VersionId}); err != nil {
			return err
		}
	}
	_, err = c.IAM.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &c.id, PolicyDocument: doc, SetAsDefault: true})
	return err
}

// otherVersions are the versions of a managed policy but the default one.
func (c *call) otherVersions(ctx context.Context) (list []types.PolicyVersion, err error) {
	pages := iam.NewListPolicyVersionsPaginator(c.IAM, &iam.ListPolicyVersionsInput{PolicyArn: &c.id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range page.Versions {
			if !v.IsDefaultVersion {
				list = append(list, v)
			}
		}
	}
	return list, nil
}

func removeManagedPolicy(ctx context.Context, c *call) error {
	c.id = c.policyARN()
	from, err := attachedTo(c.props)
	if err != nil {
		return err
	}
	if err := c.release(ctx, from, attached{}); err != nil {
		return err
	}
	versions, err := c.otherVersions(ctx)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if _, err := c.IAM.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: &c.id, VersionId: v.VersionId}); err != nil {
			return err
		}
	}
	_, err = c.IAM.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: &c.id})
	return err
}
