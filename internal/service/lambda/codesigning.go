package lambda

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/state"
)

// Code signing configurations are kept as AWS keeps them, but nothing here can
// verify a signature. So for a function that has one no code is ever trusted:
// where the policy is Enforce, deployments are refused, and where it is Warn,
// they are taken and the server's log says so.

// signingRecord is a code signing configuration.
type signingRecord struct {
	Description string                `json:"description,omitempty"`
	Publishers  []string              `json:"publishers"` // ARNs of signing profile versions
	Policy      api.CodeSigningPolicy `json:"policy"`     // for untrusted artifacts
	Modified    time.Time             `json:"modified"`
	Tags        map[string]string     `json:"tags,omitempty"`
}

type signingItem = state.Item[signingRecord]

// signingARN returns the ARN of the configuration with this record key, which
// is its Region and id.
func (s *Service) signingARN(key string) string {
	region, id, _ := strings.Cut(key, "/")
	return "arn:aws:lambda:" + region + ":" + s.opts.AccountID + ":code-signing-config:" + id
}

// findSigning finds the configuration with an ARN that has passed the model's
// pattern.
func (s *Service) findSigning(ctx context.Context, arn string) (signingItem, bool) {
	region := s.region(ctx)
	id, ok := strings.CutPrefix(arn, s.signingARN(region+"/"))
	if !ok {
		return signingItem{}, false
	}
	return s.signing.Get(region + "/" + id)
}

func noSigning(arn string) error {
	return notFound("The Lambda code signing configuration %s can not be found.", arn)
}

// noSigningFor is the error where a function is to get the configuration.
func noSigningFor(arn string) error {
	return byUser(api.NewCodeSigningConfigNotFoundException("The code signing configuration cannot be found. Check that the provided configuration is not deleted: %s.", arn))
}

func (s *Service) describeSigning(item signingItem) *api.CodeSigningConfig {
	_, id, _ := strings.Cut(item.Key, "/")
	r := &item.Value
	return &api.CodeSigningConfig{
		CodeSigningConfigId:  aws.Ptr(id),
		CodeSigningConfigArn: aws.Ptr(s.signingARN(item.Key)),
		Description:          optional(r.Description),
		AllowedPublishers:    &api.AllowedPublishers{SigningProfileVersionArns: r.Publishers},
		CodeSigningPolicies:  &api.CodeSigningPolicies{UntrustedArtifactOnDeployment: r.Policy},
		LastModified:         aws.Ptr(r.Modified.UTC().Format(timeLayout)),
	}
}

// set takes over what a request says.
func (r *signingRecord) set(now time.Time, description *string, publishers *api.AllowedPublishers, policies *api.CodeSigningPolicies) {
	r.Modified = now
	if description != nil {
		r.Description = *description
	}
	if publishers != nil {
		r.Publishers = publishers.SigningProfileVersionArns
	}
	if policies != nil && policies.UntrustedArtifactOnDeployment != "" {
		r.Policy = policies.UntrustedArtifactOnDeployment
	}
}

// CreateCodeSigningConfig implements lambda.API.
func (s *Service) CreateCodeSigningConfig(ctx context.Context, in *api.CreateCodeSigningConfigInput) (*api.CreateCodeSigningConfigOutput, error) {
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	record := signingRecord{Policy: api.CodeSigningPolicyWarn, Tags: in.Tags}
	record.set(s.opts.Now(), in.Description, in.AllowedPublishers, in.CodeSigningPolicies)
	var id [9]byte
	rand.Read(id[:])
	key := s.region(ctx) + "/csc-" + hex.EncodeToString(id[:])[:17]
	ctx, cancel := writeContext(ctx)
	defer cancel()
	item, err := s.signing.Create(ctx, key, record)
	if err != nil {
		return nil, internal(err)
	}
	return &api.CreateCodeSigningConfigOutput{CodeSigningConfig: s.describeSigning(item)}, nil
}

// GetCodeSigningConfig implements lambda.API.
func (s *Service) GetCodeSigningConfig(ctx context.Context, in *api.GetCodeSigningConfigInput) (*api.GetCodeSigningConfigOutput, error) {
	item, ok := s.findSigning(ctx, *in.CodeSigningConfigArn)
	if !ok {
		return nil, noSigning(*in.CodeSigningConfigArn)
	}
	return &api.GetCodeSigningConfigOutput{CodeSigningConfig: s.describeSigning(item)}, nil
}

// UpdateCodeSigningConfig implements lambda.API. It takes effect with the next
// deployment of the functions that have the configuration.
func (s *Service) UpdateCodeSigningConfig(ctx context.Context, in *api.UpdateCodeSigningConfigInput) (*api.UpdateCodeSigningConfigOutput, error) {
	item, err := s.modifySigning(ctx, *in.CodeSigningConfigArn, func(r *signingRecord) error {
		r.set(s.opts.Now(), in.Description, in.AllowedPublishers, in.CodeSigningPolicies)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.UpdateCodeSigningConfigOutput{CodeSigningConfig: s.describeSigning(item)}, nil
}

func (s *Service) modifySigning(ctx context.Context, arn string, change func(*signingRecord) error) (signingItem, error) {
	s.signingUse.Lock()
	defer s.signingUse.Unlock()
	item, ok := s.findSigning(ctx, arn)
	if !ok {
		return item, noSigning(arn)
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	item, err := s.signing.Modify(ctx, item.Key, change)
	return item, internal(err)
}

// DeleteCodeSigningConfig implements lambda.API.
func (s *Service) DeleteCodeSigningConfig(ctx context.Context, in *api.DeleteCodeSigningConfigInput) (*api.DeleteCodeSigningConfigOutput, error) {
	arn := *in.CodeSigningConfigArn
	s.signingUse.Lock()
	defer s.signingUse.Unlock()
	item, ok := s.findSigning(ctx, arn)
	if !ok {
		return nil, noSigning(arn)
	}
	if users := s.signedFunctions(ctx, arn); len(users) > 0 {
		return nil, conflict("The code signing configuration %s cannot be deleted because functions use it: %s", arn, bracketed(users))
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	if err := s.signing.Delete(ctx, item.Key, item.Revision); err != nil {
		return nil, internal(err)
	}
	return &api.DeleteCodeSigningConfigOutput{}, nil
}

// ListCodeSigningConfigs implements lambda.API.
func (s *Service) ListCodeSigningConfigs(ctx context.Context, in *api.ListCodeSigningConfigsInput) (*api.ListCodeSigningConfigsOutput, error) {
	prefix := s.region(ctx) + "/"
	start, err := decodeName(in.Marker)
	if err != nil {
		return nil, err
	}
	items := slices.Collect(s.signing.Scan(prefix, prefix+start))
	items, next := pageOf(items, nil, pageSize(in.MaxItems))
	out := &api.ListCodeSigningConfigsOutput{CodeSigningConfigs: []*api.CodeSigningConfig{}}
	for _, item := range items {
		out.CodeSigningConfigs = append(out.CodeSigningConfigs, s.describeSigning(item))
	}
	if next != nil {
		out.NextMarker = encodeName(strings.TrimPrefix(next.Key, prefix))
	}
	return out, nil
}

// ListFunctionsByCodeSigningConfig implements lambda.API.
func (s *Service) ListFunctionsByCodeSigningConfig(ctx context.Context, in *api.ListFunctionsByCodeSigningConfigInput) (*api.ListFunctionsByCodeSigningConfigOutput, error) {
	arn := *in.CodeSigningConfigArn
	if _, ok := s.findSigning(ctx, arn); !ok {
		return nil, noSigning(arn)
	}
	start, err := decodeName(in.Marker)
	if err != nil {
		return nil, err
	}
	arns := slices.DeleteFunc(s.signedFunctions(ctx, arn), func(function string) bool { return function < start })
	arns, next := pageOf(arns, nil, pageSize(in.MaxItems))
	out := &api.ListFunctionsByCodeSigningConfigOutput{FunctionArns: append([]string{}, arns...)}
	if next != nil {
		out.NextMarker = encodeName(*next)
	}
	return out, nil
}

// signedFunctions returns the ARNs of the functions that have a configuration,
// sorted.
func (s *Service) signedFunctions(ctx context.Context, arn string) (arns []string) {
	for _, e := range s.entries.list(s.region(ctx)) {
		if e.function.Value.SigningARN == arn {
			arns = append(arns, e.arn)
		}
	}
	return arns
}

// PutFunctionCodeSigningConfig implements lambda.API. As on AWS the code that
// the function has already is not looked at.
func (s *Service) PutFunctionCodeSigningConfig(ctx context.Context, in *api.PutFunctionCodeSigningConfigInput) (*api.PutFunctionCodeSigningConfigOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	arn := *in.CodeSigningConfigArn
	s.signingUse.RLock()
	defer s.signingUse.RUnlock()
	if _, ok := s.findSigning(ctx, arn); !ok {
		return nil, noSigningFor(arn)
	}
	if err := s.setSigning(ctx, ref, arn); err != nil {
		return nil, err
	}
	return &api.PutFunctionCodeSigningConfigOutput{CodeSigningConfigArn: aws.Ptr(arn), FunctionName: aws.Ptr(ref.name)}, nil
}

// DeleteFunctionCodeSigningConfig implements lambda.API.
func (s *Service) DeleteFunctionCodeSigningConfig(ctx context.Context, in *api.DeleteFunctionCodeSigningConfigInput) (*api.DeleteFunctionCodeSigningConfigOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	return &api.DeleteFunctionCodeSigningConfigOutput{}, s.setSigning(ctx, ref, "")
}

func (s *Service) setSigning(ctx context.Context, ref reference, arn string) error {
	ref.qualifier = ""
	return s.modifyFunction(ctx, ref, func(f *functionRecord) error {
		if f.Config.isImage() {
			return imageSigning()
		}
		f.SigningARN = arn
		return nil
	})
}

// GetFunctionCodeSigningConfig implements lambda.API. For a function that has
// none the answer is empty, as on AWS.
func (s *Service) GetFunctionCodeSigningConfig(ctx context.Context, in *api.GetFunctionCodeSigningConfigInput) (*api.GetFunctionCodeSigningConfigOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), "")
	if err != nil {
		return nil, err
	}
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if e.function.Value.Config.isImage() {
		return nil, imageSigning()
	}
	out := &api.GetFunctionCodeSigningConfigOutput{}
	if arn := e.function.Value.SigningARN; arn != "" {
		out.CodeSigningConfigArn, out.FunctionName = aws.Ptr(arn), aws.Ptr(ref.name)
	}
	return out, nil
}

func imageSigning() error {
	return invalidParameter("Code signing is not supported for functions created with container images.")
}

// checkSigned decides on new code or layers for a function whose code signing
// configuration is arn; "" is none.
func (s *Service) checkSigned(ctx context.Context, ref reference, arn string) error {
	if arn == "" {
		return nil
	}
	config, ok := s.findSigning(ctx, arn)
	if !ok {
		return noSigningFor(arn)
	}
	if config.Value.Policy == api.CodeSigningPolicyEnforce {
		return byUser(api.NewCodeVerificationFailedException("Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not configured to accept. Check the provided signature for %s.", ref.name))
	}
	s.log.Warn("deployment is not signed, of which the function's code signing configuration only warns", "function", ref.arn, "config", arn)
	return nil
}
