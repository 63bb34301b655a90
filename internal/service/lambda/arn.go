package lambda

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/function"
)

// maxFunctionName is the longest name that a new function can have.
const maxFunctionName = 64

// functionKey names a function: names are unique in a Region.
type functionKey struct{ region, name string }

func (k functionKey) String() string { return k.region + "/" + k.name }

func parseKey(s string) (functionKey, error) {
	region, name, ok := strings.Cut(s, "/")
	if !ok || region == "" || name == "" {
		return functionKey{}, fmt.Errorf("%q is not the key of a function", s)
	}
	return functionKey{region, name}, nil
}

// reference is a function as a request names it.
type reference struct {
	functionKey
	qualifier string // $LATEST, a version, an alias, or empty
	arn       string // unqualified
}

// qualified returns the ARN with the qualifier that the request gave, if any.
func (r reference) qualified() string { return qualify(r.arn, r.qualifier) }

func qualify(arn, qualifier string) string {
	if qualifier == "" {
		return arn
	}
	return arn + ":" + qualifier
}

func functionARN(region, account, name string) string {
	return "arn:aws:lambda:" + region + ":" + account + ":function:" + name
}

// functionNamePattern takes all forms of a function's name: the name, a partial
// ARN and the full ARN, each with or without a qualifier (Lambda API reference,
// FunctionName). As on AWS each part before the name is optional by itself.
var functionNamePattern = regexp.MustCompile(`^(?:arn:(aws[a-zA-Z-]*)?:lambda:)?(?:((?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?(?:(\d{12}):)?(?:function:)?([a-zA-Z0-9-_.]+)(?::(\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9-_]+))?$`)

var (
	namePattern    = regexp.MustCompile(`^[a-zA-Z0-9-_]+$`)
	versionPattern = regexp.MustCompile(`^[0-9]+$`)
	aliasPattern   = namePattern // and not a number
)

func isVersion(qualifier string) bool { return versionPattern.MatchString(qualifier) }

func isAlias(qualifier string) bool {
	return aliasPattern.MatchString(qualifier) && !isVersion(qualifier)
}

// resolve finds out which function and qualifier a request means. nameOrARN may
// hold a qualifier, which must then agree with the one given apart.
func (s *Service) resolve(ctx context.Context, nameOrARN, qualifier string) (reference, error) {
	region := s.region(ctx)
	if !strings.Contains(nameOrARN, ":") {
		return s.reference(region, nameOrARN, qualifier), nil
	}
	m := functionNamePattern.FindStringSubmatch(nameOrARN)
	if m == nil {
		return reference{}, validation("Value '%s' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: %s", nameOrARN, functionNamePattern)
	}
	if m[2] != "" && m[2] != region {
		return reference{}, notFound("Functions from '%s' are not reachable in this region ('%s')", m[2], region)
	}
	if m[3] != "" && m[3] != s.opts.AccountID {
		return reference{}, accessDenied("The function belongs to another account.")
	}
	switch derived := m[5]; {
	case derived == "":
	case qualifier != "" && qualifier != derived:
		return reference{}, invalidParameter("The derived qualifier from the function name does not match the specified qualifier.")
	default:
		qualifier = derived
	}
	return s.reference(region, m[4], qualifier), nil
}

// resolveFunction is resolve for operations on the function as a whole.
func (s *Service) resolveFunction(ctx context.Context, nameOrARN string) (reference, error) {
	ref, err := s.resolve(ctx, nameOrARN, "")
	if err == nil && ref.qualifier != "" && ref.qualifier != function.Latest {
		return ref, invalidParameter("This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN.")
	}
	return ref, err
}

func (s *Service) reference(region, name, qualifier string) reference {
	return reference{functionKey{region, name}, qualifier, functionARN(region, s.opts.AccountID, name)}
}

// region returns the Region that a request is for.
func (s *Service) region(ctx context.Context) string {
	if r := aws.RequestFrom(ctx).Region; r != "" {
		return r
	}
	return s.opts.Region
}
