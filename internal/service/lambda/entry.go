package lambda

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/state"
)

// entry is the read model of one function: immutable, replaced after every
// write. Records in it must not be changed, copies of them may.
type entry struct {
	key      functionKey
	arn      string
	function state.Item[functionRecord]
	versions []state.Item[versionRecord]        // ascending
	aliases  map[string]state.Item[aliasRecord] // by name
	routes   map[string]*route                  // by qualifier; "" is $LATEST
	urls     []*function.URL
}

// route leads an invocation to a version.
type route struct {
	invokedARN string
	target     *target
	// other gets the share weight of the invocations of a weighted alias.
	other  *target
	weight float64
}

// target is a version that can be invoked.
type target struct {
	version  *function.Version
	state    api.State
	why      api.StateReasonCode // of the state
	code     codePackage
	isolated bool // an environment serves one tenant only
}

// entries is the read model of all functions.
type entries struct {
	mu   sync.RWMutex
	all  map[functionKey]*entry
	urls map[string]*function.URL // by id
}

func (e *entries) get(key functionKey) *entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.all[key]
}

// put replaces an entry, or removes it where en is nil.
func (e *entries) put(key functionKey, en *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.all[key]; old != nil {
		for _, u := range old.urls {
			delete(e.urls, u.ID)
		}
	}
	if en == nil {
		delete(e.all, key)
		return
	}
	e.all[key] = en
	for _, u := range en.urls {
		e.urls[u.ID] = u
	}
}

// reserved returns the function's reserved concurrency, 0 where there is none.
func (e *entry) reserved() int {
	if e == nil || e.function.Value.ReservedConcurrency == nil {
		return 0
	}
	return *e.function.Value.ReservedConcurrency
}

// isolated tells whether the function's environments serve one tenant each. Lambda
// has neither provisioned concurrency nor URLs for such functions.
func (e *entry) isolated() bool { return e.function.Value.Config.Tenancy != "" }

// list returns the functions of a Region, or all, in order of their names.
func (e *entries) list(region string) []*entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var list []*entry
	for key, en := range e.all {
		if region == "" || key.region == region {
			list = append(list, en)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.key.String(), b.key.String()) })
	return list
}

// setAside sums up what functions of a Region have for themselves: reserved or
// else provisioned concurrency.
func (e *entries) setAside(region string) (sum int) {
	for _, en := range e.list(region) {
		sum += en.setAside()
	}
	return sum
}

// setAside is the concurrency that nobody but the function can use.
func (e *entry) setAside() int {
	if e != nil && e.function.Value.ReservedConcurrency != nil {
		return e.reserved()
	}
	return e.totalProvisioned()
}

// reservedIn sums up the reserved concurrency of the functions of a Region.
func (e *entries) reservedIn(region string) (sum int) {
	for _, en := range e.list(region) {
		sum += en.reserved()
	}
	return sum
}

// find returns the entry of an existing function. The error names the function
// as the request did.
func (s *Service) find(ref reference) (*entry, error) {
	e := s.entries.get(ref.functionKey)
	if e == nil {
		return nil, functionNotFound(ref.qualified())
	}
	return e, nil
}

// reload replaces the entry of a function by what the collections hold now.
func (s *Service) reload(key functionKey) *entry {
	item, ok := s.functions.Get(key.String())
	if !ok {
		s.forgetReplaced(s.entries.get(key), nil)
		s.entries.put(key, nil)
		s.opts.Invoker.Configure(functionARN(key.region, s.opts.AccountID, key.name), invoke.Limits{})
		return nil
	}
	e := &entry{
		key: key, arn: functionARN(key.region, s.opts.AccountID, key.name),
		function: item,
		aliases:  map[string]state.Item[aliasRecord]{},
	}
	f := &item.Value
	prefix := key.String() + "/"
	for v := range s.versions.Scan(prefix, "") {
		if v.Value.FunctionID == f.ID && v.Value.Number < f.NextVersion {
			e.versions = append(e.versions, v)
		}
	}
	for a := range s.aliases.Scan(prefix, "") {
		if a.Value.FunctionID == f.ID {
			e.aliases[a.Value.Name] = a
		}
	}
	s.buildRoutes(e)
	s.buildURLs(e)
	s.forgetReplaced(s.entries.get(key), e)
	s.entries.put(key, e)
	s.opts.Invoker.Configure(e.arn, e.limits())
	return e
}

func (s *Service) buildRoutes(e *entry) {
	f := &e.function.Value
	e.routes = make(map[string]*route, 2+len(e.versions)+len(e.aliases))
	serving := &f.Config
	if f.Serving != nil {
		serving = f.Serving
	}
	newTarget := func(number string, c *configuration, st *status) *target {
		v := s.functionVersion(e.key, number, c)
		v.SnapshotsOff = f.Tags[snapshotsTag] == "off"
		return &target{v, st.State, st.StateCode, c.Code, c.Tenancy != ""}
	}
	latest := newTarget(function.Latest, serving, &f.status)
	e.routes[""] = &route{invokedARN: e.arn, target: latest}
	e.routes[function.Latest] = &route{invokedARN: qualify(e.arn, function.Latest), target: latest}
	for i := range e.versions {
		v := &e.versions[i].Value
		number := strconv.Itoa(v.Number)
		e.routes[number] = &route{
			invokedARN: qualify(e.arn, number),
			target:     newTarget(number, &v.Config, &v.status),
		}
	}
	for name, a := range e.aliases {
		first := e.routes[a.Value.Version]
		if first == nil {
			continue // versions that an alias names are not deleted
		}
		r := &route{invokedARN: qualify(e.arn, name), target: first.target}
		for number, weight := range a.Value.Weights {
			if second := e.routes[number]; second != nil {
				r.other, r.weight = second.target, weight
			}
		}
		e.routes[name] = r
	}
}

// resolvedVersion is $LATEST or a published version, as qualifiers and aliases
// lead to it.
type resolvedVersion struct {
	number string
	config *configuration
	status *status
}

// version returns the version behind a qualifier: for a weighted alias the
// first one.
func (e *entry) version(qualifier string) (resolvedVersion, bool) {
	if a, ok := e.aliases[qualifier]; ok {
		qualifier = a.Value.Version
	}
	if qualifier == "" || qualifier == function.Latest {
		f := &e.function.Value
		return resolvedVersion{function.Latest, &f.Config, &f.status}, true
	}
	if v := e.published(qualifier); v != nil {
		return resolvedVersion{qualifier, &v.Value.Config, &v.Value.status}, true
	}
	return resolvedVersion{}, false
}

// published returns a published version, or nil.
func (e *entry) published(number string) *state.Item[versionRecord] {
	n, err := strconv.Atoi(number)
	if err != nil || strconv.Itoa(n) != number {
		return nil
	}
	i, ok := slices.BinarySearchFunc(e.versions, n, func(v state.Item[versionRecord], n int) int { return v.Value.Number - n })
	if !ok {
		return nil
	}
	return &e.versions[i]
}

// digests calls visit with every package and image that the function refers to.
func (e *entry) digests(visit func(digest string)) {
	f := &e.function.Value
	f.Config.digests(visit)
	if f.Serving != nil {
		f.Serving.digests(visit)
	}
	for i := range e.versions {
		e.versions[i].Value.Config.digests(visit)
	}
}

func versionKey(key functionKey, number int) string { return fmt.Sprintf("%s/%010d", key, number) }

func aliasKey(key functionKey, name string) string { return key.String() + "/" + name }

// sweepOrphans deletes versions and aliases that no function claims: a crash
// came between the write that made a function vanish, or a version fail to
// appear, and the deletion of what belonged to it.
func (s *Service) sweepOrphans(ctx context.Context) error {
	owner := func(recordKey string) (functionRecord, bool) {
		item, ok := s.functions.Get(recordKey[:max(0, strings.LastIndexByte(recordKey, '/'))])
		return item.Value, ok
	}
	var errs []error
	for v := range s.versions.Scan("", "") {
		if f, ok := owner(v.Key); !ok || f.ID != v.Value.FunctionID || v.Value.Number >= f.NextVersion {
			errs = append(errs, s.versions.Delete(ctx, v.Key, v.Revision))
		}
	}
	for a := range s.aliases.Scan("", "") {
		if f, ok := owner(a.Key); !ok || f.ID != a.Value.FunctionID {
			errs = append(errs, s.aliases.Delete(ctx, a.Key, a.Revision))
		}
	}
	return errors.Join(errs...)
}
