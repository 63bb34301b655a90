package lambda

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
)

// initFailure is AWS's reason of an allocation whose function does not start.
const initFailure = "FUNCTION_ERROR_INIT_FAILURE"

// provisionedTimeLayout is how AWS shows the time of a configuration.
const provisionedTimeLayout = "2006-01-02T15:04:05-0700"

// provisioned is a configuration of provisioned concurrency. It belongs to the
// record of the version or alias that it is for, and goes with that.
type provisioned struct {
	Requested int       `json:"requested"`
	Modified  time.Time `json:"modified"`
	Token     string    `json:"token"` // new with every Put
}

// PutProvisionedConcurrencyConfig implements lambda.API.
func (s *Service) PutProvisionedConcurrencyConfig(ctx context.Context, in *api.PutProvisionedConcurrencyConfigInput) (*api.PutProvisionedConcurrencyConfigOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), aws.Value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	if ref.qualifier == function.Latest || ref.qualifier == "" {
		return nil, notPublished()
	}
	n := int(aws.Value(in.ProvisionedConcurrentExecutions))

	// The sum over all functions must hold, so writers go one by one.
	s.reservations.Lock()
	defer s.reservations.Unlock()
	defer s.lock(ref.functionKey)()
	e, _, err := s.provisionable(ref)
	if err != nil {
		return nil, err
	}
	if err := s.checkProvisioned(e, ref.qualifier, n); err != nil {
		return nil, err
	}
	p := &provisioned{Requested: n, Modified: s.opts.Now(), Token: newID()}
	if err := s.setProvisioned(ctx, e, ref.qualifier, p); err != nil {
		return nil, err
	}
	return &api.PutProvisionedConcurrencyConfigOutput{ // as on AWS, whatever has come of it by now
		RequestedProvisionedConcurrentExecutions: in.ProvisionedConcurrentExecutions,
		AllocatedProvisionedConcurrentExecutions: aws.Ptr(int32(0)),
		AvailableProvisionedConcurrentExecutions: aws.Ptr(int32(0)),
		Status:                                   api.ProvisionedConcurrencyStatusEnumInProgress,
		LastModified:                             aws.Ptr(p.shownModified()),
	}, nil
}

// shownModified is the time of a configuration as AWS shows it.
func (p *provisioned) shownModified() string { return p.Modified.UTC().Format(provisionedTimeLayout) }

// GetProvisionedConcurrencyConfig implements lambda.API.
func (s *Service) GetProvisionedConcurrencyConfig(ctx context.Context, in *api.GetProvisionedConcurrencyConfigInput) (*api.GetProvisionedConcurrencyConfigOutput, error) {
	ref, err := s.resolvePublished(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	e, p, err := s.provisionable(ref)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, byUser(api.NewProvisionedConcurrencyConfigNotFoundException("No Provisioned Concurrency Config found for this function"))
	}
	st := s.provisionedStatus(e, ref.qualifier)
	return &api.GetProvisionedConcurrencyConfigOutput{
		RequestedProvisionedConcurrentExecutions: st.requested,
		AllocatedProvisionedConcurrentExecutions: st.allocated,
		AvailableProvisionedConcurrentExecutions: st.available,
		Status:                                   st.state, StatusReason: st.reason, LastModified: st.modified,
	}, nil
}

// ListProvisionedConcurrencyConfigs implements lambda.API.
func (s *Service) ListProvisionedConcurrencyConfigs(ctx context.Context, in *api.ListProvisionedConcurrencyConfigsInput) (*api.ListProvisionedConcurrencyConfigsOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	ref.qualifier = ""
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	qualifiers := slices.Sorted(maps.Keys(e.provisioned()))
	if marker := aws.Value(in.Marker); marker != "" {
		qualifiers = slices.DeleteFunc(qualifiers, func(q string) bool { return q < marker })
	}
	qualifiers, next := pageOf(qualifiers, in.MaxItems, maxPage)
	out := &api.ListProvisionedConcurrencyConfigsOutput{
		ProvisionedConcurrencyConfigs: []*api.ProvisionedConcurrencyConfigListItem{}, NextMarker: next,
	}
	for _, q := range qualifiers {
		st := s.provisionedStatus(e, q)
		out.ProvisionedConcurrencyConfigs = append(out.ProvisionedConcurrencyConfigs, &api.ProvisionedConcurrencyConfigListItem{
			FunctionArn:                              aws.Ptr(qualify(e.arn, q)),
			RequestedProvisionedConcurrentExecutions: st.requested,
			AllocatedProvisionedConcurrentExecutions: st.allocated,
			AvailableProvisionedConcurrentExecutions: st.available,
			Status:                                   st.state, StatusReason: st.reason, LastModified: st.modified,
		})
	}
	return out, nil
}

// DeleteProvisionedConcurrencyConfig implements lambda.API. As on AWS one that
// is not there is no error.
func (s *Service) DeleteProvisionedConcurrencyConfig(ctx context.Context, in *api.DeleteProvisionedConcurrencyConfigInput) (*api.DeleteProvisionedConcurrencyConfigOutput, error) {
	ref, err := s.resolvePublished(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	e, p, err := s.provisionable(ref)
	if err == nil && p != nil {
		err = s.setProvisioned(ctx, e, ref.qualifier, nil)
	}
	return &api.DeleteProvisionedConcurrencyConfigOutput{}, err
}

func notPublished() error {
	return invalidParameter("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
}

func alreadyProvisioned() error {
	return conflict("Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version")
}

func (s *Service) resolvePublished(ctx context.Context, name, qualifier *string) (reference, error) {
	ref, err := s.resolve(ctx, aws.Value(name), aws.Value(qualifier))
	if err == nil && (ref.qualifier == function.Latest || ref.qualifier == "") {
		err = invalidParameter("The function resource provided must be an alias or a published version.")
	}
	return ref, err
}

// provisionable finds a version or alias, and its configuration if it has one.
func (s *Service) provisionable(ref reference) (*entry, *provisioned, error) {
	e := s.entries.get(ref.functionKey)
	h := s.holder(e, ref.qualifier)
	if h == nil {
		return nil, nil, holderNotFound(ref)
	}
	return e, h.Provisioned, nil
}

// checkProvisioned refuses a configuration that cannot be had.
func (s *Service) checkProvisioned(e *entry, qualifier string, n int) error {
	if err := e.checkTarget(qualifier); err != nil {
		return err
	}
	others := 0
	for q, p := range e.provisioned() {
		if q != qualifier {
			others += p.Requested
		}
	}
	if r := e.function.Value.ReservedConcurrency; r != nil {
		if others+n > *r {
			return invalidParameter("Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function")
		}
		return nil
	}
	own := others + valueOf(e.provisioned()[qualifier])
	free := s.opts.Concurrency - s.entries.setAside(e.key.region) + own
	switch {
	case others+n > free:
		return invalidParameter("Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [%d].", free)
	case others+n > own && free-others-n < minUnreserved:
		return invalidParameter("Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [%d].", minUnreserved)
	}
	return nil
}

// checkTarget refuses a version or alias that cannot have provisioned
// concurrency: each version has it once, of its own or by one alias (Lambda
// developer guide, "Configuring provisioned concurrency for a function").
func (e *entry) checkTarget(qualifier string) error {
	if e.isolated() {
		return invalidParameter("Provisioned concurrency is not supported for functions with tenant isolation.")
	}
	version := qualifier
	if isAlias(qualifier) {
		a := e.aliases[qualifier].Value
		switch version = a.Version; {
		case version == function.Latest:
			return notPublished()
		case len(a.Weights) > 0:
			return invalidParameter("Alias with weights can not be used with Provisioned Concurrency")
		}
	}
	if err := e.checkOnce(qualifier, version); err != nil {
		return err
	}
	if err := e.checkNoSnapStart(version); err != nil {
		return err
	}
	if v := e.published(version); v.Value.State != api.StateActive {
		return conflict("The operation cannot be performed at this time. The function is currently in the following state: %s", v.Value.State)
	}
	return nil
}

// checkOnce refuses a second configuration, that of qualifier, for a version.
func (e *entry) checkOnce(qualifier, version string) error {
	for q, p := range e.provisioned() {
		if _, taken := e.shares(q, p.Requested)[version]; !taken || q == qualifier {
			continue
		}
		if isAlias(q) && !isAlias(qualifier) {
			return conflict("Version is pointed by a Provisioned Concurrency alias")
		}
		return alreadyProvisioned()
	}
	return nil
}

// checkNoSnapStart refuses provisioned concurrency for a version that starts from
// its snapshot: AWS has one or the other.
func (e *entry) checkNoSnapStart(version string) error {
	if v := e.published(version); v != nil && v.Value.Config.snapStart() {
		return snapStartRefuses("Provisioned Concurrency")
	}
	return nil
}

// checkMove refuses to let an alias that has provisioned concurrency point to a
// version that cannot have it.
func (e *entry) checkMove(a *aliasRecord) error {
	if a.Provisioned == nil {
		return nil
	}
	if a.Version == function.Latest {
		return notPublished()
	}
	for _, version := range append(slices.Collect(maps.Keys(a.Weights)), a.Version) {
		if err := e.checkOnce(a.Name, version); err != nil {
			return err
		}
		if err := e.checkNoSnapStart(version); err != nil {
			return err
		}
	}
	return nil
}

// setProvisioned writes the configuration of a version or alias; nil removes it.
func (s *Service) setProvisioned(ctx context.Context, e *entry, qualifier string, p *provisioned) error {
	h := s.holder(e, qualifier)
	h.Provisioned = p
	return s.writeHolder(ctx, e.key, h)
}

func valueOf(p *provisioned) int {
	if p == nil {
		return 0
	}
	return p.Requested
}

// provisioned returns all configurations of a function by their qualifiers.
func (e *entry) provisioned() map[string]*provisioned {
	all := map[string]*provisioned{}
	if e == nil {
		return all
	}
	for i := range e.versions {
		if v := &e.versions[i].Value; v.Provisioned != nil {
			all[number(v.Number)] = v.Provisioned
		}
	}
	for name, a := range e.aliases {
		if a.Value.Provisioned != nil {
			all[name] = a.Value.Provisioned
		}
	}
	return all
}

// totalProvisioned is the sum of what is requested.
func (e *entry) totalProvisioned() (sum int) {
	for _, p := range e.provisioned() {
		sum += p.Requested
	}
	return sum
}

// shares tells how many of n environments each version gets behind a qualifier:
// those of a weighted alias follow its weights.
func (e *entry) shares(qualifier string, n int) map[string]int {
	a, ok := e.aliases[qualifier]
	if !ok {
		return map[string]int{qualifier: n}
	}
	shares := map[string]int{}
	rest := n
	for version, weight := range a.Value.Weights {
		k := int(math.Round(weight * float64(n)))
		shares[version] = k
		rest -= k
	}
	shares[a.Value.Version] += rest
	return shares
}

// limits is the function's concurrency as the data plane is to keep it.
func (e *entry) limits() invoke.Limits {
	if e == nil {
		return invoke.Limits{}
	}
	l := invoke.Limits{Reserved: e.function.Value.ReservedConcurrency}
	for q, p := range e.provisioned() {
		for version, n := range e.shares(q, p.Requested) {
			if r := e.routes[version]; n > 0 && r != nil && r.target.state == api.StateActive {
				l.Provisioned = append(l.Provisioned, invoke.Allocation{Version: r.target.version, Count: n, Token: p.Token})
			}
		}
	}
	return l
}

// provisionedStatus is a configuration and what has become of it.
type provisionedStatus struct {
	requested, allocated, available *int32
	state                           api.ProvisionedConcurrencyStatusEnum
	reason, modified                *string
}

func (s *Service) provisionedStatus(e *entry, qualifier string) provisionedStatus {
	p := e.provisioned()[qualifier]
	out := provisionedStatus{
		requested: aws.Ptr(int32(p.Requested)), allocated: aws.Ptr(int32(0)), available: aws.Ptr(int32(0)),
		state:    api.ProvisionedConcurrencyStatusEnumReady,
		modified: aws.Ptr(p.shownModified()),
	}
	for version, n := range e.shares(qualifier, p.Requested) {
		r := e.routes[version]
		if n == 0 || r == nil {
			continue
		}
		st := s.opts.Invoker.Allocation(r.target.version)
		*out.allocated += int32(st.Allocated)
		*out.available += int32(st.Available)
		switch {
		case st.State == invoke.Failed:
			out.state, out.reason = api.ProvisionedConcurrencyStatusEnumFailed, aws.Ptr(initFailure)
		case st.State == invoke.InProgress && out.reason == nil:
			out.state = api.ProvisionedConcurrencyStatusEnumInProgress
		}
	}
	return out
}
