package sam

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// same lists the properties of a SAM function that its CloudFormation function has
// by the same name.
var same = []string{"FunctionName", "Handler", "Runtime", "Description", "MemorySize", "Timeout", "Role", "Environment", "Layers",
	"ReservedConcurrentExecutions", "Architectures", "EphemeralStorage", "CodeSigningConfigArn", "RuntimeManagementConfig",
	"LoggingConfig", "TenancyConfig", "RecursiveLoop", "PackageType", "ImageConfig", "SnapStart"}

// own lists the properties that are turned into something else.
var own = []string{"CodeUri", "InlineCode", "ImageUri", "Tags", "PropagateTags", "Tracing", "Policies", "RolePath", "AssumeRolePolicyDocument",
	"PermissionsBoundary", "AutoPublishAlias", "AutoPublishAliasAllProperties", "AutoPublishCodeSha256", "VersionDescription",
	"VersionDeletionPolicy", "ProvisionedConcurrencyConfig", "FunctionUrlConfig", "EventInvokeConfig", "Events", "DeploymentPreference"}

// instead says what to do about what Lapwing lacks.
var instead = map[string]string{
	"Events.Api":        "it has no API Gateway; FunctionUrlConfig gives a function an HTTP address",
	"Events.HttpApi":    "it has no API Gateway; FunctionUrlConfig gives a function an HTTP address",
	"Events.Schedule":   "it has no schedules; invoke the function from cron or a systemd timer",
	"Events.ScheduleV2": "it has no schedules; invoke the function from cron or a systemd timer",
	"DeadLetterQueue":   "it has neither SQS nor SNS; EventInvokeConfig sends what fails to another function",
	"VpcConfig":         "functions reach the internet as they are",
}

func lacks(what, key string) string {
	if hint := instead[key]; hint != "" {
		return fmt.Sprintf("Lapwing does not have %s: %s", what, hint)
	}
	return "Lapwing does not have " + what
}

// function turns a SAM function into a Lambda function and what belongs to it.
func (x *expander) function(r template.Resource) {
	props := map[string]any{}
	for name, v := range r.Properties {
		switch {
		case slices.Contains(same, name):
			props[name] = v
		case !slices.Contains(own, name):
			x.fail(x.property(r, name), "%s", lacks("the property "+name+" of "+r.Type, name))
		}
	}
	x.events(r)
	x.deploymentPreference(r)
	x.functionCode(r, props)
	tags := tagList(r.Properties["Tags"])
	if len(tags) > 0 {
		props["Tags"] = tags
	}
	tracing := r.Properties["Tracing"]
	if tracing == "Disabled" {
		tracing = nil
	}
	if tracing != nil {
		props["TracingConfig"] = map[string]any{"Mode": tracing}
	}
	if props["Role"] == nil {
		x.role(r, tags, tracing != nil)
		props["Role"] = template.GetAtt(r.ID+"Role", "Arn")
	} else if r.Properties["Policies"] != nil {
		x.fail(x.property(r, "Policies"), "%s has a Role, which its Policies would not change: give one of them", r.ID)
	}
	x.emit(template.Resource{ID: r.ID, Type: "AWS::Lambda::Function", Properties: props, DependsOn: r.DependsOn, Retain: r.Retain, RetainReplaced: r.RetainReplaced})
	alias := x.publish(r, props)
	x.url(r, alias)
	x.eventInvoke(r, alias)
}

func (x *expander) events(r template.Resource) {
	events, _ := r.Properties["Events"].(map[string]any)
	for name, v := range events {
		event, _ := v.(map[string]any)
		typ, _ := event["Type"].(string)
		line := x.t.Line("Resources", r.ID, "Properties", "Events", name)
		x.fail(line, "%s", lacks(fmt.Sprintf("events of type %s (event %s of %s)", typ, name, r.ID), "Events."+typ))
	}
}

func (x *expander) deploymentPreference(r template.Resource) {
	m, _ := r.Properties["DeploymentPreference"].(map[string]any)
	if m != nil && fmt.Sprint(m["Enabled"]) != "false" {
		x.fail(x.property(r, "DeploymentPreference"), "Lapwing does not have DeploymentPreference of %s: it moves an alias at once", r.ID)
	}
}

func (x *expander) functionCode(r template.Resource, props map[string]any) {
	if r.Properties["PackageType"] == "Image" {
		x.imageCode(r, props)
		return
	}
	inline, hasInline := r.Properties["InlineCode"]
	_, hasURI := r.Properties["CodeUri"]
	switch {
	case hasInline && hasURI:
		x.fail(x.property(r, "InlineCode"), "%s has both InlineCode and CodeUri: give one of them", r.ID)
	case hasInline:
		props["Code"] = map[string]any{"ZipFile": inline}
	case hasURI:
		props["Code"] = x.location(r, "CodeUri")
	default:
		// As for `sam build`: templates of `sam init` leave it out.
		props["Code"] = x.code(r, "CodeUri", ".")
	}
}

// imageCode is the code of a function from an image, which must be in a registry:
// what SAM's Metadata says about building it is for Docker.
func (x *expander) imageCode(r template.Resource, props map[string]any) {
	uri := r.Properties["ImageUri"]
	if uri == nil || r.Properties["CodeUri"] != nil || r.Properties["InlineCode"] != nil {
		x.fail(x.t.Line("Resources", r.ID), "%s has PackageType Image: build the image, push it to Lapwing's registry, and give its ImageUri", r.ID)
		return
	}
	props["Code"] = map[string]any{"ImageUri": uri}
}

// tagList turns SAM's mapping of tags into CloudFormation's list.
func tagList(v any) []any {
	m, _ := v.(map[string]any)
	var list []any
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, map[string]any{"Key": key, "Value": m[key]})
	}
	return list
}

// publish makes a version and an alias of a function with AutoPublishAlias, and
// returns the alias's name in the stack. The version's has a hash of the code,
// the environment and the memory, or of all properties: when one of these changes
// a new version is made, and the old one stays.
func (x *expander) publish(r template.Resource, function map[string]any) (alias string) {
	name, ok := r.Properties["AutoPublishAlias"].(string)
	if !ok || name == "" {
		for _, property := range []string{"AutoPublishAlias", "ProvisionedConcurrencyConfig", "VersionDescription", "VersionDeletionPolicy"} {
			if r.Properties[property] != nil {
				x.fail(x.property(r, property), "%s of %s needs AutoPublishAlias to be a text", property, r.ID)
			}
		}
		return ""
	}
	relevant := map[string]any{"Code": function["Code"], "Environment": function["Environment"], "MemorySize": function["MemorySize"]}
	if fmt.Sprint(r.Properties["AutoPublishAliasAllProperties"]) == "true" {
		relevant = function
	} else if sha := r.Properties["AutoPublishCodeSha256"]; sha != nil {
		relevant["Code"] = sha
	}
	version := template.Resource{ID: r.ID + "Version" + suffix(relevant), Type: "AWS::Lambda::Version", Retain: true, RetainReplaced: true,
		Properties: map[string]any{"FunctionName": template.Ref(r.ID)}}
	if d := r.Properties["VersionDescription"]; d != nil {
		version.Properties["Description"] = d
	}
	if policy := r.Properties["VersionDeletionPolicy"]; policy == "Delete" {
		version.Retain, version.RetainReplaced = false, false
	} else if policy != nil && policy != "Retain" {
		x.fail(x.property(r, "VersionDeletionPolicy"), "VersionDeletionPolicy of %s must be Retain or Delete", r.ID)
	}
	x.emit(version)
	alias = r.ID + "Alias" + strings.NewReplacer("-", "D", "_", "U").Replace(name)
	props := map[string]any{"Name": name, "FunctionName": template.Ref(r.ID), "FunctionVersion": template.GetAtt(version.ID, "Version")}
	if pc := r.Properties["ProvisionedConcurrencyConfig"]; pc != nil {
		props["ProvisionedConcurrencyConfig"] = pc
	}
	x.emit(template.Resource{ID: alias, Type: "AWS::Lambda::Alias", Properties: props})
	x.out.Names[r.ID+".Version"], x.out.Names[r.ID+".Alias"] = version.ID, alias
	return alias
}

// url makes the function URL, and what lets everyone use it if it is public.
func (x *expander) url(r template.Resource, alias string) {
	config, ok := r.Properties["FunctionUrlConfig"].(map[string]any)
	if !ok {
		return
	}
	target := template.Ref(r.ID)
	if alias != "" {
		target = template.Ref(alias)
	}
	props := map[string]any{"TargetFunctionArn": target}
	maps.Copy(props, config)
	x.emit(template.Resource{ID: r.ID + "Url", Type: "AWS::Lambda::Url", Properties: props})
	if config["AuthType"] != "NONE" {
		return
	}
	x.emit(template.Resource{ID: r.ID + "UrlPublicPermissions", Type: "AWS::Lambda::Permission", Properties: map[string]any{
		"FunctionName": target, "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"}})
	x.emit(template.Resource{ID: r.ID + "URLInvokeAllowPublicAccess", Type: "AWS::Lambda::Permission", Properties: map[string]any{
		"FunctionName": target, "Action": "lambda:InvokeFunction", "Principal": "*", "InvokedViaFunctionUrl": true}})
}

func (x *expander) eventInvoke(r template.Resource, alias string) {
	config, ok := r.Properties["EventInvokeConfig"].(map[string]any)
	if !ok {
		return
	}
	props := map[string]any{"FunctionName": template.Ref(r.ID), "Qualifier": "$LATEST"}
	var depends []string
	if alias != "" {
		props["Qualifier"], depends = r.Properties["AutoPublishAlias"], []string{alias}
	}
	for name, v := range config {
		if name != "DestinationConfig" {
			props[name] = v
			continue
		}
		props[name] = x.destinations(r, v)
	}
	x.emit(template.Resource{ID: r.ID + "EventInvokeConfig", Type: "AWS::Lambda::EventInvokeConfig", Properties: props, DependsOn: depends})
}

func (x *expander) destinations(r template.Resource, v any) map[string]any {
	m, _ := v.(map[string]any)
	out := map[string]any{}
	for name, v := range m {
		d, _ := v.(map[string]any)
		if typ := d["Type"]; typ != nil && typ != "Lambda" || d["Destination"] == nil {
			line := x.t.Line("Resources", r.ID, "Properties", "EventInvokeConfig", "DestinationConfig", name)
			x.fail(line, "Lapwing does not have destination %s of type %v (of %s): it has Lambda functions, with a Destination", name, typ, r.ID)
			continue
		}
		out[name] = map[string]any{"Destination": d["Destination"]}
	}
	return out
}
