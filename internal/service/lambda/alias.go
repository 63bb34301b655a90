package lambda

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/state"
)

// CreateAlias implements lambda.API.
func (s *Service) CreateAlias(ctx context.Context, in *api.CreateAliasInput) (*api.CreateAliasOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	name := aws.Value(in.Name)
	if !isAlias(name) {
		return nil, validation("Value '%s' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)", name)
	}
	version := aws.Value(in.FunctionVersion)
	defer s.lock(ref.functionKey)()
	e := s.entries.get(ref.functionKey)
	if e == nil {
		return nil, functionNotFound(qualify(ref.arn, version))
	}
	weights, err := e.checkRouting(version, in.RoutingConfig)
	if err != nil {
		return nil, err
	}
	if err := e.checkUsable(version, weights); err != nil {
		return nil, err
	}
	exists := conflict("Alias already exists: %s", qualify(e.arn, name))
	if _, ok := e.aliases[name]; ok {
		return nil, exists
	}
	record := aliasRecord{
		FunctionID: e.function.Value.ID, Name: name, Version: version,
		Description: aws.Value(in.Description), Weights: weights, Revision: newID(),
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	// What may still be there belongs to an earlier function of this name.
	_, err = s.aliases.Put(ctx, aliasKey(ref.functionKey, name), record)
	s.reload(ref.functionKey)
	if err != nil {
		return nil, internal(err)
	}
	return describeAlias(e, &record), nil
}

// GetAlias implements lambda.API.
func (s *Service) GetAlias(ctx context.Context, in *api.GetAliasInput) (*api.GetAliasOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	name := aws.Value(in.Name)
	if e := s.entries.get(ref.functionKey); e != nil {
		if a, ok := e.aliases[name]; ok {
			return describeAlias(e, &a.Value), nil
		}
	}
	return nil, aliasNotFound(qualify(ref.arn, name))
}

// UpdateAlias implements lambda.API.
func (s *Service) UpdateAlias(ctx context.Context, in *api.UpdateAliasInput) (*api.UpdateAliasOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	name := aws.Value(in.Name)
	defer s.lock(ref.functionKey)()
	e := s.entries.get(ref.functionKey)
	if e == nil {
		return nil, notFound("Alias not found: %s", qualify(ref.arn, name))
	}
	a, ok := e.aliases[name]
	if !ok {
		return nil, notFound("Alias not found: %s", qualify(ref.arn, name))
	}
	record := a.Value
	if err := checkRevision(in.RevisionId, record.Revision); err != nil {
		return nil, err
	}
	if in.Description != nil {
		record.Description = *in.Description
	}
	if in.FunctionVersion != nil {
		record.Version = *in.FunctionVersion
	}
	routing := in.RoutingConfig
	if routing == nil { // unchanged, but it must fit the version
		routing = &api.AliasRoutingConfiguration{AdditionalVersionWeights: record.Weights}
	}
	if record.Weights, err = e.checkRouting(record.Version, routing); err != nil {
		return nil, err
	}
	if in.FunctionVersion != nil || in.RoutingConfig != nil {
		if err := e.checkUsable(record.Version, record.Weights); err != nil {
			return nil, err
		}
	}
	if err := e.checkMove(&record); err != nil {
		return nil, err
	}
	record.Revision = newID()
	if err := s.updateAlias(ctx, e, a, record); err != nil {
		return nil, err
	}
	return describeAlias(e, &record), nil
}

func (s *Service) updateAlias(ctx context.Context, e *entry, a state.Item[aliasRecord], record aliasRecord) error {
	ctx, cancel := writeContext(ctx)
	defer cancel()
	_, err := s.aliases.Update(ctx, a.Key, a.Revision, record)
	s.reload(e.key)
	return internal(err)
}

// DeleteAlias implements lambda.API. As on AWS an alias that is not there is no
// error.
func (s *Service) DeleteAlias(ctx context.Context, in *api.DeleteAliasInput) (*api.DeleteAliasOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	e, err := s.find(reference{ref.functionKey, "", ref.arn})
	if err != nil {
		return nil, err
	}
	a, ok := e.aliases[aws.Value(in.Name)]
	if !ok {
		return &api.DeleteAliasOutput{}, nil
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	err = s.aliases.Delete(ctx, a.Key, a.Revision)
	s.reload(ref.functionKey)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, internal(err)
	}
	return &api.DeleteAliasOutput{}, nil
}

// ListAliases implements lambda.API.
func (s *Service) ListAliases(ctx context.Context, in *api.ListAliasesInput) (*api.ListAliasesOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	e, err := s.find(reference{ref.functionKey, "", ref.arn})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(e.aliases)) {
		if in.Marker != nil && name < *in.Marker {
			continue
		}
		if in.FunctionVersion == nil || e.aliases[name].Value.Version == *in.FunctionVersion {
			names = append(names, name)
		}
	}
	names, next := pageOf(names, nil, pageSize(in.MaxItems))
	out := &api.ListAliasesOutput{NextMarker: next, Aliases: []*api.AliasConfiguration{}}
	for _, name := range names {
		a := e.aliases[name]
		out.Aliases = append(out.Aliases, describeAlias(e, &a.Value))
	}
	return out, nil
}

// checkRouting checks what an alias is to point to and returns its weights.
func (e *entry) checkRouting(version string, routing *api.AliasRoutingConfiguration) (map[string]float64, error) {
	var weights map[string]float64
	if routing != nil && len(routing.AdditionalVersionWeights) > 0 {
		weights = routing.AdditionalVersionWeights
	}
	if len(weights) > 1 {
		return nil, invalidParameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
	}
	for number, weight := range weights {
		shown := fmt.Sprintf("{%s=%s}", number, javaDouble(weight))
		switch {
		case !isVersion(number):
			return nil, validation("Value '%s' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]", shown)
		case !(weight >= 0 && weight <= 1):
			return nil, validation("Value '%s' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]", shown)
		case version == function.Latest:
			return nil, invalidParameter("$LATEST is not supported for an alias pointing to more than 1 version")
		case number == version:
			return nil, invalidParameter("Invalid function version %s. Function version %s is already included in routing configuration.", number, number)
		case e.published(number) == nil:
			return nil, functionNotFound(qualify(e.arn, number))
		}
	}
	if version != function.Latest && e.published(version) == nil {
		return nil, functionNotFound(qualify(e.arn, version))
	}
	return weights, nil
}

// checkUsable refuses to lead an alias to a version that failed, as AWS does.
func (e *entry) checkUsable(version string, weights map[string]float64) error {
	for _, number := range append(slices.Collect(maps.Keys(weights)), version) {
		if v := e.published(number); v != nil && v.Value.State == api.StateFailed {
			return conflict("The operation cannot be performed at this time. The function is currently in the following state: '%s', StateReasonCode: '%s'", v.Value.State, v.Value.StateCode)
		}
	}
	return nil
}

// javaDouble writes a number as AWS's messages do: always with a fraction.
func javaDouble(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if f == float64(int64(f)) {
		s += ".0"
	}
	return s
}

func describeAlias(e *entry, a *aliasRecord) *api.AliasConfiguration {
	out := &api.AliasConfiguration{
		AliasArn:        aws.Ptr(qualify(e.arn, a.Name)),
		Name:            aws.Ptr(a.Name),
		FunctionVersion: aws.Ptr(a.Version),
		Description:     aws.Ptr(a.Description),
		RevisionId:      aws.Ptr(a.Revision),
	}
	if len(a.Weights) > 0 {
		out.RoutingConfig = &api.AliasRoutingConfiguration{AdditionalVersionWeights: a.Weights}
	}
	return out
}
