package lambda

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/image"
)

// maxLayers is how many layers a function can have (Lambda quotas).
const maxLayers = 5

// layerUse is a version of a layer as a function uses it. It holds all that the
// function needs of it, and lasts when the version is deleted.
type layerUse struct {
	ARN  string      `json:"arn"`
	Code codePackage `json:"code"`
}

// useLayers checks the layers that a function is to have, in their order.
func (s *Service) useLayers(ctx context.Context, arns []string) ([]layerUse, error) {
	if len(arns) > maxLayers {
		return nil, invalidParameter("Cannot reference more than %d layers.", maxLayers)
	}
	region := s.region(ctx)
	used := map[layerKey]string{}
	var uses []layerUse
	for _, text := range arns {
		arn, ok := parseLayerARN(text)
		switch {
		case ok && arn.account != s.opts.AccountID:
			return nil, foreignLayer(ctx, text, "GetLayerVersion")
		case ok && arn.region != region:
			return nil, invalidParameter("Layers are not in the same region as the function. Layers are expected to be in region %s.", region)
		}
		v, found := s.layerVersions.Get(arn.layerKey.version(arn.version))
		if !ok || !found {
			return nil, invalidParameter("Layer version %s does not exist.", text)
		}
		if other, ok := used[arn.layerKey]; ok {
			return nil, invalidParameter("Two different versions of the same layer are not allowed to be referenced in the same function. %s and %s are versions of the same layer.", other, text)
		}
		used[arn.layerKey] = text
		uses = append(uses, layerUse{arn.String(), v.Value.Code})
	}
	return uses, nil
}

// checkUnzipped refuses code and layers that are too large together.
func (c *configuration) checkUnzipped() error {
	var layers int64
	for _, l := range c.Layers {
		layers += l.Code.Unpacked
	}
	switch total := layers + c.Code.Unpacked; {
	case layers > image.MaxUnpacked:
		return invalidParameter("Layers consume more than the available size of %d bytes", image.MaxUnpacked)
	case total > image.MaxUnpacked:
		return invalidParameter("Function code combined with layers exceeds the maximum allowed size of %d bytes. The actual size is %d bytes.", image.MaxUnpacked, total)
	}
	return nil
}

// layerDigests are the images of the layers, in order.
func (c *configuration) layerDigests() (digests []string) {
	for _, l := range c.Layers {
		digests = append(digests, l.Code.Digest)
	}
	return digests
}

// digests calls visit with every package and image that the configuration
// refers to.
func (c *configuration) digests(visit func(digest string)) {
	if c.Image != nil {
		visit(c.Image.Root)
	} else {
		visit(c.Code.Digest)
	}
	for _, l := range c.Layers {
		visit(l.Code.Digest)
	}
	if len(c.Layers) > 1 {
		visit(image.MergedDigest(c.layerDigests()))
	}
}

func describeLayers(uses []layerUse) (list []*api.Layer) {
	for _, l := range uses {
		list = append(list, &api.Layer{Arn: aws.Ptr(l.ARN), CodeSize: aws.Ptr(l.Code.Size)})
	}
	return list
}
