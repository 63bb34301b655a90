package lambda

import (
	"context"
	"strconv"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/state"
)

func number(n int) string { return strconv.Itoa(n) }

// PublishVersion implements lambda.API.
func (s *Service) PublishVersion(ctx context.Context, in *api.PublishVersionInput) (*api.PublishVersionOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	if in.PublishTo != "" {
		return nil, unsupported("PublishTo")
	}
	defer s.lock(ref.functionKey)()
	e, err := s.find(reference{ref.functionKey, "", ref.arn})
	if err != nil {
		return nil, err
	}
	record := e.function.Value
	if err := checkRevision(in.RevisionId, record.Revision); err != nil {
		return nil, err
	}
	if current := record.Config.sha256(); in.CodeSha256 != nil && *in.CodeSha256 != "" && *in.CodeSha256 != current {
		return nil, invalidParameter("CodeSHA256 (%s) is different from current CodeSHA256 in $LATEST (%s). Please try again with the CodeSHA256 in $LATEST.", *in.CodeSha256, current)
	}
	if err := e.checkIdle(); err != nil {
		return nil, err
	}
	if record.Serving != nil || record.State != api.StateActive {
		return nil, conflict("The operation cannot be performed at this time. The last update of the function failed: %s", e.arn)
	}
	if last := e.lastPublished(); last != nil && last.Value.Source == record.Config.fingerprint() {
		v, _ := e.version(number(last.Value.Number))
		return s.describe(ref.functionKey, v, qualify(ref.arn, v.number)), nil
	}
	if err := s.checkStorage(ref.region, record.Config.Code.Size); err != nil {
		return nil, err
	}

	ctx, cancel := writeContext(ctx)
	defer cancel()
	defer s.reload(ref.functionKey)
	published := record.status
	published.Revision, published.Modified = newID(), s.opts.Now()
	config := record.Config
	if in.Description != nil && *in.Description != "" {
		config.Description = *in.Description
	}
	v, err := s.putVersion(ctx, ref.functionKey, &record, config, published)
	if err != nil {
		return nil, internal(err)
	}
	record.Revision = newID()
	if _, err := s.functions.Update(ctx, ref.functionKey.String(), e.function.Revision, record); err != nil {
		return nil, internal(err)
	}
	s.reload(ref.functionKey)
	s.steps.add(ref.functionKey) // with SnapStart there is more to do
	return s.describe(ref.functionKey, v, qualify(ref.arn, v.number)), nil
}

// putVersion writes the next version of f. It does not count until f, whose
// next version number it raises, is written too.
func (s *Service) putVersion(ctx context.Context, key functionKey, f *functionRecord, c configuration, st status) (resolvedVersion, error) {
	if c.snapStart() {
		st = publishing(st.Modified)
	}
	v := versionRecord{FunctionID: f.ID, Number: f.NextVersion, Config: c, Source: f.Config.fingerprint(), status: st}
	if _, err := s.versions.Put(ctx, versionKey(key, v.Number), v); err != nil {
		return resolvedVersion{}, err
	}
	f.NextVersion++
	return resolvedVersion{number(v.Number), &v.Config, &v.status}, nil
}

// lastPublished returns the newest version, or nil.
func (e *entry) lastPublished() *state.Item[versionRecord] {
	if len(e.versions) == 0 {
		return nil
	}
	return &e.versions[len(e.versions)-1]
}

// ListVersionsByFunction implements lambda.API.
func (s *Service) ListVersionsByFunction(ctx context.Context, in *api.ListVersionsByFunctionInput) (*api.ListVersionsByFunctionOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), "")
	if err != nil {
		return nil, err
	}
	e, err := s.find(reference{ref.functionKey, "", ref.arn})
	if err != nil {
		return nil, err
	}
	all := e.allVersions()
	from := 0
	if aws.Value(in.Marker) != "" {
		n, err := strconv.Atoi(*in.Marker)
		if err != nil {
			return nil, invalidMarker()
		}
		for from < len(all) && all[from].ordinal() < n {
			from++
		}
	}
	versions, next := pageOf(all[from:], in.MaxItems, maxPage)
	out := &api.ListVersionsByFunctionOutput{Versions: []*api.FunctionConfiguration{}}
	for _, v := range versions {
		out.Versions = append(out.Versions, s.summarize(ref.functionKey, v, qualify(ref.arn, v.number)))
	}
	if next != nil {
		out.NextMarker = aws.Ptr(next.number)
	}
	return out, nil
}

// allVersions returns $LATEST and the published versions in ascending order.
func (e *entry) allVersions() []resolvedVersion {
	all := make([]resolvedVersion, 0, 1+len(e.versions))
	latest, _ := e.version(function.Latest)
	all = append(all, latest)
	for i := range e.versions {
		v := &e.versions[i].Value
		all = append(all, resolvedVersion{number(v.Number), &v.Config, &v.status})
	}
	return all
}

// ordinal is the position of a version among its siblings.
func (v resolvedVersion) ordinal() int {
	n, _ := strconv.Atoi(v.number) // 0 for $LATEST
	return n
}
