package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

var roleKinds = map[string]kind{"AWS::IAM::Role": {
	properties: "AssumeRolePolicyDocument* RoleName! Path! Description MaxSessionDuration ManagedPolicyArns Policies PermissionsBoundary! Tags",
	attributes: []string{"Arn", "RoleId"}, name: "RoleName", limit: 64,
	check: func(c *call) error {
		if _, err := roleInput(c); err != nil {
			return err
		}
		_, err := inlinePolicies(c.props)
		if err == nil {
			_, err = managedPolicies(c.props)
		}
		return err
	},
	create: func(ctx context.Context, c *call) error {
		in, err := roleInput(c)
		if err != nil {
			return err
		}
		if _, err := c.IAM.CreateRole(ctx, in); err != nil {
			return err
		}
		c.made = true
		return c.syncRole(ctx)
	},
	update: updateRole,
	remove: removeRole,
	read: func(ctx context.Context, c *call) (map[string]string, error) {
		out, err := c.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: &c.id})
		if err != nil {
			return nil, err
		}
		return map[string]string{"": c.id, "Arn": aws.ToString(out.Role.Arn), "RoleId": aws.ToString(out.Role.RoleId)}, nil
	},
}}

func roleInput(c *call) (*iam.CreateRoleInput, error) {
	in := &iam.CreateRoleInput{RoleName: &c.id}
	if err := bind(c.only("Path", "Description", "MaxSessionDuration", "PermissionsBoundary"), in); err != nil {
		return nil, err
	}
	tags, err := iamTags(c.props["Tags"])
	if err != nil {
		return nil, err
	}
	in.Tags = tags
	in.AssumeRolePolicyDocument, err = c.document("AssumeRolePolicyDocument")
	return in, err
}

// document is a property that is a policy document.
func (c *call) document(name string) (*string, error) {
	if hasPending(c.props[name]) {
		return aws.String("{}"), nil // only looked at before the deployment
	}
	s, err := document(c.props[name])
	return &s, err
}

func iamTags(v any) ([]types.Tag, error) {
	m, err := tagMap(v)
	var list []types.Tag
	for key, value := range m {
		list = append(list, types.Tag{Key: &key, Value: &value})
	}
	return list, err
}

func updateRole(ctx context.Context, c *call) error {
	in, err := roleInput(c)
	if err != nil {
		return err
	}
	if c.has("AssumeRolePolicyDocument") {
		if _, err := c.IAM.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &c.id, PolicyDocument: in.AssumeRolePolicyDocument}); err != nil {
			return err
		}
	}
	if c.has("Description", "MaxSessionDuration") {
		up := &iam.UpdateRoleInput{RoleName: &c.id, Description: aws.String(c.str("Description")), MaxSessionDuration: aws.Int32(3600)}
		if in.MaxSessionDuration != nil {
			up.MaxSessionDuration = in.MaxSessionDuration
		}
		if _, err := c.IAM.UpdateRole(ctx, up); err != nil {
			return err
		}
	}
	if c.has("Tags") {
		if err := c.tagRole(ctx, in.Tags); err != nil {
			return err
		}
	}
	return c.syncRole(ctx)
}

func (c *call) tagRole(ctx context.Context, tags []types.Tag) error {
	old, err := tagMap(c.old["Tags"])
	if err != nil {
		return err
	}
	var gone []string
	for key := range old {
		if !slices.ContainsFunc(tags, func(t types.Tag) bool { return *t.Key == key }) {
			gone = append(gone, key)
		}
	}
	if len(gone) > 0 {
		if _, err := c.IAM.UntagRole(ctx, &iam.UntagRoleInput{RoleName: &c.id, TagKeys: gone}); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		return nil
	}
	_, err = c.IAM.TagRole(ctx, &iam.TagRoleInput{RoleName: &c.id, Tags: tags})
	return err
}

// inlinePolicies are a role's Policies: documents by name.
func inlinePolicies(props map[string]any) (map[string]string, error) {
	m := map[string]string{}
	list, ok := props["Policies"].([]any)
	if !ok && props["Policies"] != nil {
		return nil, within("Policies", errors.New("must be a list"))
	}
	for i, one := range list {
		p, _ := one.(map[string]any)
		if len(p) != 2 || p["PolicyName"] == nil || p["PolicyDocument"] == nil {
			return nil, within("Policies", fmt.Errorf("%d must have PolicyName and PolicyDocument", i))
		}
		if hasPending(p) {
			continue
		}
		name, _ := text(p["PolicyName"])
		doc, err := document(p["PolicyDocument"])
		if err != nil {
			return nil, within("Policies "+name, err)
		}
		m[name] = doc
	}
	return m, nil
}

func managedPolicies(props map[string]any) (list []string, err error) {
	if err := bind(props["ManagedPolicyArns"], &list); err != nil {
		return nil, within("ManagedPolicyArns", err)
	}
	return list, nil
}

// syncRole gives a role its policies and takes away those that it had from its
// template before. What others have given it stays.
func (c *call) syncRole(ctx context.Context) error {
	inline, err := inlinePolicies(c.props)
	if err != nil {
		return err
	}
	oldInline, err := inlinePolicies(c.old)
	if err != nil {
		return err
	}
	managed, err := managedPolicies(c.props)
	if err != nil {
		return err
	}
	oldManaged, err := managedPolicies(c.old)
	if err != nil {
		return err
	}
	for name, doc := range inline {
		if _, err := c.IAM.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &c.id, PolicyName: &name, PolicyDocument: &doc}); err != nil {
			return err
		}
	}
	for name := range oldInline {
		if _, stays := inline[name]; !stays {
			if _, err := c.IAM.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &c.id, PolicyName: &name}); err != nil && !isMissing(err) {
				return err
			}
		}
	}
	for _, arn := range managed {
		if _, err := c.IAM.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &c.id, PolicyArn: &arn}); err != nil {
			return err
		}
	}
	for _, arn := range oldManaged {
		if !slices.Contains(managed, arn) {
			if _, err := c.IAM.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: &c.id, PolicyArn: &arn}); err != nil && !isMissing(err) {
				return err
			}
		}
	}
	return nil
}

// removeRole takes a role's policies from it, which must be gone first, and
// deletes it.
func removeRole(ctx context.Context, c *call) error {
	attached := iam.NewListAttachedRolePoliciesPaginator(c.IAM, &iam.ListAttachedRolePoliciesInput{RoleName: &c.id})
	for attached.HasMorePages() {
		page, err := attached.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, p := range page.AttachedPolicies {
			if _, err := c.IAM.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: &c.id, PolicyArn: p.PolicyArn}); err != nil && !isMissing(err) {
				return err
			}
		}
	}
	inline := iam.NewListRolePoliciesPaginator(c.IAM, &iam.ListRolePoliciesInput{RoleName: &c.id})
	for inline.HasMorePages() {
		page, err := inline.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, name := range page.PolicyNames {
			if _, err := c.IAM.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &c.id, PolicyName: &name}); err != nil && !isMissing(err) {
				return err
			}
		}
	}
	_, err := c.IAM.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &c.id})
	return err
}
