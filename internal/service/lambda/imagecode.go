package lambda

import (
	"context"
	"errors"
	"net/url"
	"path"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image/container"
)

// Containers finds and keeps container images. Package container's Store
// implements it.
type Containers interface {
	// Resolve finds the image that a URI names; here is the host by which the
	// client reached us. An *container.Error says what is wrong.
	Resolve(ctx context.Context, uri, here string) (container.Image, error)
	// Prepare makes an image's root file system. An *container.Error says why
	// that cannot be; another error is a fault of this host.
	Prepare(ctx context.Context, img container.Image) error
	// Collect removes what was pulled for other images than the given ones.
	Collect(ctx context.Context, used []container.Image) error
}

// maxImageSettings is how large an ImageConfig may be, in bytes (Lambda quotas,
// container image settings size).
const maxImageSettings = 16 << 10

// Reason codes of images that cannot be used (Lambda API reference,
// StateReasonCode), with AWS's words where they are known.
const (
	codeImageDeleted  = "ImageDeleted"
	codeImageDenied   = "ImageAccessDenied"
	codeInvalidImage  = "InvalidImage"
	codeInternalError = "InternalError"

	// permit says what to do when a registry's address is not permitted.
	permit = "The operator of this server permits such a registry by naming its host in registries.json (auths, mirrors or insecure)."

	imageDeleted = "The function is trying to use a deleted image."
	imageDenied  = "Lambda does not have permission to access the ECR image. Check the ECR permissions."
)

// imageConfig is a function's ImageConfig: what it wants other than its image
// says.
type imageConfig struct {
	EntryPoint       []string `json:"entryPoint,omitempty"`
	Command          []string `json:"command,omitempty"`
	WorkingDirectory string   `json:"workingDirectory,omitempty"`
}

// newImageConfig checks an ImageConfig and returns nil for one that wants
// nothing.
func newImageConfig(in *api.ImageConfig) (*imageConfig, error) {
	c := imageConfig{in.EntryPoint, in.Command, aws.Value(in.WorkingDirectory)}
	if len(c.EntryPoint) == 0 && len(c.Command) == 0 && c.WorkingDirectory == "" {
		return nil, nil
	}
	size := 0
	for _, s := range append(slices.Concat(c.EntryPoint, c.Command), c.WorkingDirectory) {
		size += len(s)
		if strings.ContainsRune(s, 0) { // no process can have such a one
			return nil, invalidParameter("ImageConfig must not contain NUL characters.")
		}
	}
	if size > maxImageSettings {
		return nil, invalidParameter("ImageConfig has %d bytes. The limit of container image settings is %d bytes.", size, maxImageSettings)
	}
	return &c, nil
}

func (c *imageConfig) describe() *api.ImageConfigResponse {
	if c == nil {
		return nil
	}
	return &api.ImageConfigResponse{ImageConfig: &api.ImageConfig{
		EntryPoint: c.EntryPoint, Command: c.Command, WorkingDirectory: optional(c.WorkingDirectory),
	}}
}

// isImage tells whether the function's package is a container image.
func (c *configuration) isImage() bool { return c.Package == api.PackageTypeImage }

// checkPackage refuses options that the package type does not go with.
func (o *options) checkPackage(c *configuration) error {
	wantsImage := o.ImageConfig != nil && (len(o.ImageConfig.Command) > 0 || len(o.ImageConfig.EntryPoint) > 0 || aws.Value(o.ImageConfig.WorkingDirectory) != "")
	switch {
	case !c.isImage() && wantsImage:
		return invalidParameter("ImageConfig is not supported for functions created with deployment packages.")
	case !c.isImage():
		return nil
	case o.Runtime != "" || o.Handler != nil:
		return invalidParameter("The Runtime and Handler parameters are not supported for functions created with container images.")
	case len(o.Layers) > 0:
		return invalidParameter("Layers are not supported for functions created with container images.")
	}
	return nil
}

// functionImage is what the data plane needs to know of a function's image.
func (s *Service) functionImage(c *configuration) *function.Image {
	set, own := c.Image.Settings, c.ImageConfig
	if own == nil {
		own = new(imageConfig)
	}
	entry, command, dir := set.EntryPoint, set.Command, set.WorkingDirectory
	if len(own.EntryPoint) > 0 {
		entry = own.EntryPoint
	}
	if len(own.Command) > 0 {
		command = own.Command
	}
	if own.WorkingDirectory != "" {
		dir = path.Join("/", own.WorkingDirectory)
	}
	return &function.Image{Root: s.opts.Images.Path(c.Image.Root), Command: slices.Concat(entry, command), Dir: dir, Env: set.Env}
}

// artifact is what a request deploys: a package, or an image.
type artifact struct {
	code  codePackage
	image *container.Image
}

func (a artifact) set(c *configuration) { c.Code, c.Image = a.code, a.image }

// acquire obtains the code of a function with configuration c. The caller writes
// the record that refers to it, and then calls release.
func (c *code) acquire(ctx context.Context, config *configuration, src source) (a artifact, release func(), err error) {
	if !config.isImage() {
		a.code, release, err = c.store(ctx, src)
		return a, release, err
	}
	c.uploads.RLock()
	img, err := c.resolve(ctx, src.imageURI)
	if err != nil {
		c.uploads.RUnlock()
		return a, nil, err
	}
	return artifact{image: &img}, func() {
		c.uploads.RUnlock()
		if !c.referenced()[img.Root] {
			c.drop(img.Root, 0)
		}
	}, nil
}

// resolve finds the image of a URI. Where its registry cannot be reached, it is
// the one that a function has by the same URI.
func (c *code) resolve(ctx context.Context, uri string) (container.Image, error) {
	if c.s.opts.Containers == nil {
		return container.Image{}, unsupported("PackageType Image")
	}
	var here string
	if u, err := url.Parse(aws.RequestFrom(ctx).BaseURL); err == nil {
		here = u.Host
	}
	img, err := c.s.opts.Containers.Resolve(ctx, uri, here)
	e, refused := errors.AsType[*container.Error](err)
	if !refused {
		return img, internal(err)
	}
	switch e.Kind {
	case container.Unreachable:
		if known, ok := c.newest(uri); ok {
			c.s.log.Warn("the registry of an image cannot be reached: its URI means what it meant before", "image", uri, "digest", known.Digest, "err", err)
			return known, nil
		}
		err = invalidParameter("Source image %s cannot be pulled: its registry cannot be reached. Check the network and the registry configuration.", uri)
	case container.NotPermitted:
		err = invalidParameter("Source image %s cannot be pulled: %s. %s", uri, e.Reason(), permit)
	case container.NotFound:
		err = invalidParameter("Source image %s does not exist. Provide a valid source image.", uri)
	case container.AccessDenied:
		err = accessDenied("%s", imageDenied)
	case container.Unsupported:
		err = invalidParameter("The image manifest, config or layer media type for the source image %s is not supported.", uri)
	default:
		err = invalidParameter("Source image %s is not valid. Provide a valid source image.", uri)
	}
	return img, err.(*aws.Error).WithCause(e)
}

// newest returns the image that was deployed last by a URI.
func (c *code) newest(uri string) (img container.Image, ok bool) {
	var at int64
	for _, e := range c.s.entries.list("") {
		e.configurations(func(config *configuration, st *status) {
			if config.Image != nil && config.Image.URI == uri && (!ok || st.Modified.UnixNano() > at) {
				img, at, ok = *config.Image, st.Modified.UnixNano(), true
			}
		})
	}
	return img, ok
}

// configurations calls visit with all that the function's versions are and were
// last, and their life cycles.
func (e *entry) configurations(visit func(*configuration, *status)) {
	f := &e.function.Value
	visit(&f.Config, &f.status)
	if f.Serving != nil {
		visit(f.Serving, &f.status)
	}
	for i := range e.versions {
		v := &e.versions[i].Value
		visit(&v.Config, &v.status)
	}
}

// images returns the images that function versions have.
func (c *code) images() (used []container.Image) {
	for _, e := range c.s.entries.list("") {
		e.configurations(func(config *configuration, _ *status) {
			if config.Image != nil {
				used = append(used, *config.Image)
			}
		})
	}
	return used
}

// deployImage makes an image ready.
func (s *Service) deployImage(ctx context.Context, img *container.Image) outcome {
	if s.opts.Containers == nil {
		return outcome{code: codeInternalError, reason: "Container images are not supported by this server."}
	}
	err := s.opts.Containers.Prepare(ctx, *img)
	if !s.code.referenced()[img.Root] { // the function was deleted meanwhile
		s.code.drop(img.Root, 0)
	}
	if err == nil {
		return outcome{}
	}
	s.log.Error("container image cannot be used", "image", img.Resolved, "err", err)
	e, refused := errors.AsType[*container.Error](err)
	if !refused {
		return outcome{code: codeInternalError, reason: "Lambda could not prepare the container image: the host has a fault, which its log tells of."}
	}
	switch e.Kind {
	case container.NotFound:
		return outcome{code: codeImageDeleted, reason: imageDeleted}
	case container.AccessDenied:
		return outcome{code: codeImageDenied, reason: imageDenied}
	case container.NotPermitted:
		return outcome{code: codeImageDenied, reason: "The image " + img.Resolved + " cannot be pulled: " + e.Reason() + ". " + permit}
	case container.Unreachable:
		return outcome{code: codeInternalError, reason: "The registry of the image " + img.Resolved + " cannot be reached."}
	case container.Unsupported:
		return outcome{code: codeInvalidImage, reason: "The image manifest, config or layer media type for the source image " + img.URI + " is not supported."}
	}
	return outcome{code: codeInvalidImage, reason: "The source image " + img.URI + " is not valid: " + e.Reason()}
}

// restoreImages lets functions whose image is not unpacked any more go through
// their life cycle again: they are Pending until it is there. It is called when
// the service starts, before anything else knows of them.
func (s *Service) restoreImages(ctx context.Context) error {
	missing := func(c *configuration, st *status) bool {
		if c.Image == nil || st.State != api.StateActive || st.inProgress() || s.opts.Images.Has(c.Image.Root) {
			return false
		}
		st.restore()
		return true
	}
	for f := range s.functions.Scan("", "") {
		r := f.Value
		if r.Serving == nil && missing(&r.Config, &r.status) {
			if _, err := s.functions.Update(ctx, f.Key, f.Revision, r); err != nil {
				return err
			}
		}
	}
	for v := range s.versions.Scan("", "") {
		r := v.Value
		if missing(&r.Config, &r.status) {
			if _, err := s.versions.Update(ctx, v.Key, v.Revision, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// remakeImages makes images again that turn out to be damaged while functions use
// them. Environments that have one end, and none starts until it is there.
func (s *Service) remakeImages() {
	for {
		var root string
		select {
		case <-s.ctx.Done():
			return
		case root = <-s.opts.Images.Lost():
		}
		for _, img := range s.code.images() {
			if img.Root == root {
				s.deployImage(s.ctx, &img) // tells what it cannot do
				break
			}
		}
		for _, e := range s.entries.list("") {
			uses := false
			e.configurations(func(c *configuration, _ *status) { uses = uses || c.Image != nil && c.Image.Root == root })
			if uses {
				unlock := s.lock(e.key)
				s.reload(e.key) // where the image is
				unlock()
			}
		}
	}
}
