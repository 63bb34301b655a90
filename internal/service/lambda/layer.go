package lambda

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/state"
)

// layerRecord is a layer: it outlives its versions, so that their numbers are
// never used twice.
type layerRecord struct {
	// LastVersion is the highest number that was ever given out.
	LastVersion int64 `json:"lastVersion"`
}

// layerVersionRecord is a version of a layer.
type layerVersionRecord struct {
	Number        int64              `json:"number"`
	Created       time.Time          `json:"created"`
	Description   string             `json:"description,omitempty"`
	License       string             `json:"license,omitempty"`
	Architectures []api.Architecture `json:"architectures,omitempty"`
	Runtimes      []api.Runtime      `json:"runtimes,omitempty"`
	Code          codePackage        `json:"code"`

	Policy         []statement `json:"policy,omitempty"`
	PolicyRevision string      `json:"policyRevision,omitempty"` // new with every change of Policy
}

// layerKey names a layer: names are unique in a Region.
type layerKey struct{ region, name string }

func (k layerKey) String() string { return k.region + "/" + k.name }

// version is the key of a version's record; they sort by their numbers.
func (k layerKey) version(number int64) string { return fmt.Sprintf("%s/%019d", k, number) }

// layerARN is the ARN of a layer, or of a version of it, in its parts.
type layerARN struct {
	layerKey
	account string
	version int64 // 0 where the ARN is a layer's
}

func (a layerARN) String() string {
	arn := "arn:aws:lambda:" + a.region + ":" + a.account + ":layer:" + a.name
	if a.version == 0 {
		return arn
	}
	return arn + ":" + strconv.FormatInt(a.version, 10)
}

// parseLayerARN takes an ARN that has passed the model's pattern. The ARN of
// one of AWS's own layers, which have neither Region nor account, is none.
func parseLayerARN(s string) (layerARN, bool) {
	p := strings.Split(s, ":")
	if len(p) < 7 || len(p) > 8 || p[5] != "layer" {
		return layerARN{}, false
	}
	a := layerARN{layerKey{p[3], p[6]}, p[4], 0}
	if len(p) == 8 {
		n, err := strconv.ParseInt(p[7], 10, 64)
		if err != nil {
			return layerARN{}, false
		}
		a.version = n
	}
	return a, true
}

// lockLayer takes the lock of a layer's writers. No function has such a name.
func (s *Service) lockLayer(key layerKey) (unlock func()) {
	return s.lock(functionKey{key.region, "layer:" + key.name})
}

func (s *Service) layerARN(key layerKey, version int64) string {
	return layerARN{key, s.opts.AccountID, version}.String()
}

// resolveLayer finds out which layer a request means.
func (s *Service) resolveLayer(ctx context.Context, nameOrARN string) (layerKey, error) {
	region := s.region(ctx)
	if !strings.Contains(nameOrARN, ":") {
		return layerKey{region, nameOrARN}, nil
	}
	arn, ok := parseLayerARN(nameOrARN)
	switch {
	case !ok:
		return layerKey{}, noSuchResource()
	case arn.account != s.opts.AccountID:
		return layerKey{}, foreignLayer(ctx, nameOrARN, aws.RequestFrom(ctx).Operation)
	case arn.region != region:
		return layerKey{}, notFound("Layers from '%s' are not reachable in this region ('%s')", arn.region, region)
	}
	return arn.layerKey, nil
}

// foreignLayer refuses a layer of another account: none of those is here.
func foreignLayer(ctx context.Context, arn, action string) error {
	return accessDenied("User: %s is not authorized to perform: lambda:%[3]s on resource: %[2]s because no resource-based policy allows the lambda:%[3]s action",
		aws.RequestFrom(ctx).Caller.ARN, arn, action)
}

func noSuchResource() *aws.Error { return notFound("The resource you requested does not exist.") }

func layerVersionNotFound(arn string) *aws.Error {
	return notFound("Layer version %s does not exist.", arn)
}

// PublishLayerVersion implements lambda.API.
func (s *Service) PublishLayerVersion(ctx context.Context, in *api.PublishLayerVersionInput) (*api.PublishLayerVersionOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	for _, r := range in.CompatibleRuntimes {
		if !slices.Contains(api.RuntimeValues, r) {
			return nil, validation("Value '%s' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: %s]", bracketed(in.CompatibleRuntimes), bracketed(api.RuntimeValues))
		}
	}
	pkg, release, err := s.code.store(ctx, source{
		zip: in.Content.ZipFile, bucket: in.Content.S3Bucket, key: in.Content.S3Key, versionID: in.Content.S3ObjectVersion,
		storage: string(in.Content.S3ObjectStorageMode), what: "layer content",
	})
	if err != nil {
		return nil, err
	}
	defer release()

	defer s.lockLayer(key)()
	if err := s.checkStorage(key.region, pkg.Size); err != nil {
		return nil, err
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	layer, _ := s.layers.Get(key.String())
	v := layerVersionRecord{
		Number: layer.Value.LastVersion + 1, Created: s.opts.Now(),
		Description: aws.Value(in.Description), License: aws.Value(in.LicenseInfo),
		Architectures: in.CompatibleArchitectures, Runtimes: in.CompatibleRuntimes, Code: pkg,
	}
	// The number is taken first: a crash in between only leaves one out.
	if _, err := s.layers.Put(ctx, key.String(), layerRecord{LastVersion: v.Number}); err != nil {
		return nil, internal(err)
	}
	if _, err := s.layerVersions.Create(ctx, key.version(v.Number), v); err != nil {
		return nil, internal(err)
	}
	return (*api.PublishLayerVersionOutput)(s.describeLayerVersion(ctx, key, &v)), nil
}

// describeLayerVersion is a version of a layer with a URL of its content.
func (s *Service) describeLayerVersion(ctx context.Context, key layerKey, v *layerVersionRecord) *api.GetLayerVersionResponse {
	return &api.GetLayerVersionResponse{
		Content: &api.LayerVersionContentOutput{
			Location:   aws.Ptr(s.codeURL(aws.RequestFrom(ctx).BaseURL, v.Code.Digest)),
			CodeSha256: aws.Ptr(v.Code.sha256Base64()),
			CodeSize:   aws.Ptr(v.Code.Size),
		},
		LayerArn:                aws.Ptr(s.layerARN(key, 0)),
		LayerVersionArn:         aws.Ptr(s.layerARN(key, v.Number)),
		Description:             aws.Ptr(v.Description),
		CreatedDate:             aws.Ptr(v.Created.UTC().Format(timeLayout)),
		Version:                 aws.Ptr(v.Number),
		CompatibleArchitectures: v.Architectures,
		CompatibleRuntimes:      v.Runtimes,
		LicenseInfo:             optional(v.License),
	}
}

// GetLayerVersion implements lambda.API.
func (s *Service) GetLayerVersion(ctx context.Context, in *api.GetLayerVersionInput) (*api.GetLayerVersionOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	return s.getLayerVersion(ctx, key, aws.Value(in.VersionNumber))
}

// GetLayerVersionByArn implements lambda.API.
func (s *Service) GetLayerVersionByArn(ctx context.Context, in *api.GetLayerVersionByArnInput) (*api.GetLayerVersionByArnOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.Arn))
	if err != nil {
		return nil, err
	}
	arn, _ := parseLayerARN(*in.Arn)
	return s.getLayerVersion(ctx, key, arn.version)
}

func (s *Service) getLayerVersion(ctx context.Context, key layerKey, number int64) (*api.GetLayerVersionResponse, error) {
	if err := checkLayerVersion(number); err != nil {
		return nil, err
	}
	v, ok := s.layerVersions.Get(key.version(number))
	if !ok {
		return nil, noSuchResource()
	}
	return s.describeLayerVersion(ctx, key, &v.Value), nil
}

func checkLayerVersion(number int64) error {
	if number < 1 {
		return invalidParameter("Layer Version Cannot be less than 1")
	}
	return nil
}

// DeleteLayerVersion implements lambda.API. Functions that use the version keep
// it; none can take it any more.
func (s *Service) DeleteLayerVersion(ctx context.Context, in *api.DeleteLayerVersionInput) (*api.DeleteLayerVersionOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	if err := checkLayerVersion(aws.Value(in.VersionNumber)); err != nil {
		return nil, err
	}
	defer s.lockLayer(key)()
	v, ok := s.layerVersions.Get(key.version(*in.VersionNumber))
	if !ok {
		return &api.DeleteLayerVersionOutput{}, nil // as on AWS
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	if err := s.layerVersions.Delete(ctx, v.Key, v.Revision); err != nil {
		return nil, internal(err)
	}
	s.code.drop(v.Value.Code.Digest, codeGrace)
	return &api.DeleteLayerVersionOutput{}, nil
}

// layerFilter chooses versions by what they say that they are compatible with.
type layerFilter struct {
	architecture api.Architecture
	runtime      api.Runtime
}

func (f layerFilter) check() error {
	if f.runtime != "" && !slices.Contains(api.RuntimeValues, f.runtime) {
		return validation("Value '%s' at 'compatibleRuntime' failed to satisfy constraint: Member must satisfy enum value set: %s", f.runtime, bracketed(api.RuntimeValues))
	}
	return nil
}

func (f layerFilter) match(v *layerVersionRecord) bool {
	return (f.architecture == "" || slices.Contains(v.Architectures, f.architecture)) &&
		(f.runtime == "" || slices.Contains(v.Runtimes, f.runtime))
}

// versionsOf returns the versions of a layer that a filter lets pass, newest
// first.
func (s *Service) versionsOf(key layerKey, filter layerFilter) (list []state.Item[layerVersionRecord]) {
	for v := range s.layerVersions.Scan(key.String()+"/", "") {
		if filter.match(&v.Value) {
			list = append(list, v)
		}
	}
	slices.Reverse(list)
	return list
}

func (s *Service) layerItem(key layerKey, v *layerVersionRecord) *api.LayerVersionsListItem {
	return &api.LayerVersionsListItem{
		LayerVersionArn:         aws.Ptr(s.layerARN(key, v.Number)),
		Version:                 aws.Ptr(v.Number),
		Description:             aws.Ptr(v.Description),
		CreatedDate:             aws.Ptr(v.Created.UTC().Format(timeLayout)),
		CompatibleArchitectures: v.Architectures,
		CompatibleRuntimes:      v.Runtimes,
		LicenseInfo:             optional(v.License),
	}
}

// ListLayers implements lambda.API: each layer with the newest version that
// matches, in order of their names. A layer without one is left out.
func (s *Service) ListLayers(ctx context.Context, in *api.ListLayersInput) (*api.ListLayersOutput, error) {
	filter := layerFilter{in.CompatibleArchitecture, in.CompatibleRuntime}
	if err := filter.check(); err != nil {
		return nil, err
	}
	start, err := decodeName(in.Marker)
	if err != nil {
		return nil, err
	}
	var items []*api.LayersListItem
	prefix := s.region(ctx) + "/"
	for layer := range s.layers.Scan(prefix, prefix+start) {
		key := layerKey{s.region(ctx), strings.TrimPrefix(layer.Key, prefix)}
		if versions := s.versionsOf(key, filter); len(versions) > 0 {
			items = append(items, &api.LayersListItem{
				LayerName: aws.Ptr(key.name), LayerArn: aws.Ptr(s.layerARN(key, 0)),
				LatestMatchingVersion: s.layerItem(key, &versions[0].Value),
			})
		}
	}
	items, next := pageOf(items, in.MaxItems, maxPage)
	out := &api.ListLayersOutput{Layers: append([]*api.LayersListItem{}, items...)}
	if next != nil {
		out.NextMarker = encodeName(*(*next).LayerName)
	}
	return out, nil
}

// ListLayerVersions implements lambda.API: newest first. As on AWS a layer that
// does not exist has no versions.
func (s *Service) ListLayerVersions(ctx context.Context, in *api.ListLayerVersionsInput) (*api.ListLayerVersionsOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	filter := layerFilter{in.CompatibleArchitecture, in.CompatibleRuntime}
	if err := filter.check(); err != nil {
		return nil, err
	}
	versions := s.versionsOf(key, filter)
	if aws.Value(in.Marker) != "" {
		n, err := strconv.ParseInt(*in.Marker, 10, 64)
		if err != nil {
			return nil, invalidMarker()
		}
		versions = slices.DeleteFunc(versions, func(v state.Item[layerVersionRecord]) bool { return v.Value.Number > n })
	}
	versions, next := pageOf(versions, in.MaxItems, maxPage)
	out := &api.ListLayerVersionsOutput{LayerVersions: []*api.LayerVersionsListItem{}}
	for i := range versions {
		out.LayerVersions = append(out.LayerVersions, s.layerItem(key, &versions[i].Value))
	}
	if next != nil {
		out.NextMarker = aws.Ptr(strconv.FormatInt(next.Value.Number, 10))
	}
	return out, nil
}
