package sam

import (
	"fmt"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// BasicExecution is the managed policy that every function's role has.
const BasicExecution = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"

// AssumeRole is the trust policy of a role for Lambda functions.
func AssumeRole() map[string]any {
	return map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Action": []any{"sts:AssumeRole"}, "Principal": map[string]any{"Service": []any{"lambda.amazonaws.com"}}}}}
}

// role makes the role of a function that names none, from its Policies.
func (x *expander) role(r template.Resource, tags []any, tracing bool) {
	props := map[string]any{"AssumeRolePolicyDocument": AssumeRole()}
	for from, to := range map[string]string{"AssumeRolePolicyDocument": "AssumeRolePolicyDocument", "RolePath": "Path", "PermissionsBoundary": "PermissionsBoundary"} {
		if v := r.Properties[from]; v != nil {
			props[to] = v
		}
	}
	if len(tags) > 0 {
		props["Tags"] = tags
	}
	managed := []any{BasicExecution}
	if tracing {
		managed = append(managed, "arn:aws:iam::aws:policy/AWSXRayDaemonWriteAccess")
	}
	entries, isList := r.Properties["Policies"].([]any)
	if !isList && r.Properties["Policies"] != nil {
		entries = []any{r.Properties["Policies"]}
	}
	var inline []any
	for i, entry := range entries {
		arn, document, err := x.policy(entry)
		switch {
		case err != nil:
			line := x.t.Line("Resources", r.ID, "Properties", "Policies", fmt.Sprint(i))
			x.fail(line, "policy %d of %s: %v", i+1, r.ID, err)
		case document != nil:
			inline = append(inline, map[string]any{"PolicyName": fmt.Sprintf("%sRolePolicy%d", r.ID, i), "PolicyDocument": document})
		case !slices.Contains(managed, arn):
			managed = append(managed, arn)
		}
	}
	props["ManagedPolicyArns"] = managed
	if len(inline) > 0 {
		props["Policies"] = inline
	}
	x.emit(template.Resource{ID: r.ID + "Role", Type: "AWS::IAM::Role", Properties: props, Retain: r.Retain})
}

// policy reads an entry of Policies: a managed policy by name or ARN, a policy
// document, or a policy template with its parameters.
func (x *expander) policy(entry any) (arn any, document map[string]any, err error) {
	switch v := entry.(type) {
	case template.Pending:
		return v, nil, nil
	case string:
		if strings.HasPrefix(v, "arn:") {
			return v, nil, nil
		}
		if found, ok := x.opts.ManagedPolicy(v); ok {
			return found, nil, nil
		}
		return nil, nil, fmt.Errorf("there is no AWS managed policy %s here: `aws iam list-policies --scope AWS` lists them", v)
	case map[string]any:
		if v["Statement"] != nil {
			return nil, v, nil
		}
		if len(v) == 1 {
			for name, parameters := range v {
				document, err = fromTemplate(name, parameters)
			}
			return nil, document, err
		}
	}
	return nil, nil, fmt.Errorf("a policy is the name or ARN of a managed one, a document with a Statement, or a policy template")
}

// statement is a statement of a policy template: actions of a service, and the
// resources, in which ${Name} is a parameter of the template.
type statement struct{ actions, resources string }

// arn prefixes of resources in the own account.
const local = ":${AWS::Region}:${AWS::AccountId}:"

// templates are the policy templates of SAM for the services that Lapwing has
// ("AWS SAM policy templates"). Those of other services would give leave to use
// what is not there.
var templates = map[string][]statement{
	"CloudWatchPutMetricPolicy": {{"cloudwatch:PutMetricData", "*"}},
	"FilterLogEventsPolicy":     {{"logs:FilterLogEvents", "logs" + local + "log-group:${LogGroupName}:log-stream:*"}},
	"LambdaInvokePolicy":        {{"lambda:InvokeFunction", "lambda" + local + "function:${FunctionName}*"}},
	"S3ReadPolicy": {{"s3: GetObject ListBucket GetBucketLocation GetObjectVersion GetLifecycleConfiguration",
		"s3:::${BucketName} s3:::${BucketName}/*"}},
	"S3WritePolicy": {{"s3: PutObject PutObjectAcl PutLifecycleConfiguration", "s3:::${BucketName} s3:::${BucketName}/*"}},
	"S3CrudPolicy": {{"s3: GetObject ListBucket GetBucketLocation GetObjectVersion PutObject PutObjectAcl GetLifecycleConfiguration PutLifecycleConfiguration DeleteObject",
		"s3:::${BucketName} s3:::${BucketName}/*"}},
	"S3FullAccessPolicy": {
		{"s3: GetObject GetObjectAcl GetObjectVersion PutObject PutObjectAcl DeleteObject DeleteObjectTagging DeleteObjectVersionTagging GetObjectTagging GetObjectVersionTagging PutObjectTagging PutObjectVersionTagging",
			"s3:::${BucketName}/*"},
		{"s3: ListBucket GetBucketLocation GetLifecycleConfiguration PutLifecycleConfiguration", "s3:::${BucketName}"},
	},
}

// fromTemplate makes the document of a policy template.
func fromTemplate(name string, parameters any) (map[string]any, error) {
	statements, ok := templates[name]
	if !ok {
		return nil, fmt.Errorf("there is no policy template %s: Lapwing has those of its own services; write the policy out", name)
	}
	values, ok := parameters.(map[string]any)
	if !ok && parameters != nil {
		return nil, fmt.Errorf("the parameters of %s must be a mapping", name)
	}
	var list []any
	used := map[string]bool{}
	for _, s := range statements {
		var resources []any
		for resource := range strings.FieldsSeq(s.resources) {
			if resource == "*" {
				resources = append(resources, "*")
				continue
			}
			needed := between(resource)
			if needed != "" && values[needed] == nil {
				return nil, fmt.Errorf("%s needs the parameter %s", name, needed)
			}
			used[needed] = true
			own := map[string]any{}
			if needed != "" {
				own[needed] = values[needed]
			}
			resources = append(resources, template.Pending{Expr: map[string]any{"Fn::Sub": []any{"arn:${AWS::Partition}:" + resource, own}}})
		}
		list = append(list, map[string]any{"Effect": "Allow", "Action": actions(s.actions), "Resource": resources})
	}
	for given := range values {
		if !used[given] {
			return nil, fmt.Errorf("%s has no parameter %s", name, given)
		}
	}
	return map[string]any{"Version": "2012-10-17", "Statement": list}, nil
}

// between finds the parameter in a resource; names with :: are CloudFormation's.
func between(resource string) string {
	for _, part := range strings.Split(resource, "${")[1:] {
		if name, _, _ := strings.Cut(part, "}"); !strings.Contains(name, "::") {
			return name
		}
	}
	return ""
}

// actions reads "s3: GetObject PutObject", or one action as it is.
func actions(s string) []any {
	service, rest, several := strings.Cut(s, ": ")
	if !several {
		return []any{s}
	}
	var list []any
	for name := range strings.FieldsSeq(rest) {
		list = append(list, service+":"+name)
	}
	return list
}
