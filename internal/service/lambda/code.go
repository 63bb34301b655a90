package lambda

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/image/container"
	"lapwing.dev/lapwing/internal/state"
)

// Limits of code packages (Lambda quotas).
const (
	maxZipped      = 52_428_800     // bytes of a package in a request
	maxFromS3      = 262_144_000    // bytes of a package from S3: no more than it may unpack to
	maxCodeStorage = 80_530_636_800 // bytes of all packages of an account in a Region
)

// codeGrace is how long a package stays after the last version that referred to
// it has gone: longer than an invocation or an Init that still uses it, and
// than a URL of it that was given out.
const codeGrace = 20 * time.Minute

// source is where a request says that the code is.
type source struct {
	zip                       []byte
	bucket, key, versionID    *string
	imageURI, kmsKey, storage string
	what                      string // in messages, where it is not function code
}

// code keeps the code packages: blobs and the images unpacked from them.
type code struct {
	s     *Service
	blobs *state.Blobs // our own set: nobody else refers to them
	// uploads is held for reading from the storing of a package until a record
	// refers to it, and for writing while packages are deleted.
	uploads sync.RWMutex

	mu      sync.Mutex
	dropped map[string]time.Time // digest -> when to delete it, if unused then
	wake    chan struct{}
}

func (c *code) init(s *Service, blobs *state.Blobs) {
	c.s, c.blobs, c.dropped, c.wake = s, blobs, map[string]time.Time{}, make(chan struct{}, 1)
}

// store checks the code of a request and stores it. The caller writes the
// record that refers to the package, and then calls release. A package that is
// refused, or to which no record came to refer, leaves nothing behind.
func (c *code) store(ctx context.Context, src source) (pkg codePackage, release func(), err error) {
	r, size, closeSource, err := c.open(ctx, src)
	if err != nil {
		return codePackage{}, nil, err
	}
	defer closeSource()

	c.uploads.RLock()
	defer func() {
		if err != nil {
			c.uploads.RUnlock()
		}
	}()
	img, err := c.s.opts.Images.Unpack(ctx, r, size)
	if err != nil {
		return codePackage{}, nil, refusal(err)
	}
	// The blob comes after the image and is deleted before it, so that after a
	// crash there is no blob without an image by which to find it.
	digest, _, err := c.blobs.Put(ctx, io.NewSectionReader(r, 0, size))
	if err != nil {
		c.drop(img.Digest, 0)
		return codePackage{}, nil, internal(err)
	}
	if string(digest) != img.Digest {
		return codePackage{}, nil, internal(fmt.Errorf("blob %s and image %s of one package differ", digest, img.Digest))
	}
	return codePackage{Digest: img.Digest, Size: size, Unpacked: img.UnpackedSize}, func() {
		c.uploads.RUnlock()
		if !c.referenced()[img.Digest] {
			c.drop(img.Digest, 0)
		}
	}, nil
}

// open opens the package of a request.
func (c *code) open(ctx context.Context, src source) (r io.ReaderAt, size int64, closeSource func(), err error) {
	fail := func(err error) (io.ReaderAt, int64, func(), error) { return nil, 0, nil, err }
	fromS3 := src.bucket != nil || src.key != nil || src.versionID != nil
	switch {
	case src.imageURI != "":
		return fail(invalidParameter("Please don't provide ImageUri when creating a function with packageType Zip."))
	case src.kmsKey != "":
		return fail(unsupported("SourceKMSKeyArn"))
	case src.storage == string(api.S3ObjectStorageModeReference):
		return fail(unsupported("S3ObjectStorageMode REFERENCE"))
	case src.zip != nil && fromS3:
		return fail(invalidParameter("Please do not provide other FunctionCode parameters when providing a ZipFile."))
	case src.zip != nil:
		if len(src.zip) > maxZipped {
			return fail(entityTooLarge("Zipped size must be smaller than %d bytes", maxZipped))
		}
		return bytes.NewReader(src.zip), int64(len(src.zip)), func() {}, nil
	case src.bucket == nil || src.key == nil:
		return fail(invalidParameter("Please provide a source for %s.", cmp.Or(src.what, "function code")))
	case c.s.opts.Objects == nil:
		return fail(unsupported("S3Bucket"))
	}

	body, size, _, _, err := c.s.opts.Objects.OpenObject(ctx, *src.bucket, *src.key, aws.Value(src.versionID))
	if err != nil {
		if e, ok := errors.AsType[*aws.Error](err); ok && e.Status < 500 {
			return fail(invalidParameter("Error occurred while GetObject. S3 Error Code: %s. S3 Error Message: %s", e.Code, e.Message).WithCause(err))
		}
		return fail(internal(err))
	}
	defer body.Close()
	if size >= maxFromS3 {
		return fail(invalidParameter("Unzipped size must be smaller than %d bytes", image.MaxUnpacked))
	}
	f, size, err := c.s.opts.Images.Spool(ctx, body, maxFromS3)
	if err != nil {
		return fail(refusal(err))
	}
	return f, size, func() { f.Close() }, nil
}

// refusal puts what package image says of a package into Lambda's words.
func refusal(err error) error {
	if refused, ok := errors.AsType[*image.Error](err); ok {
		if refused.Reason == image.ReasonEmpty {
			return invalidParameter("Uploaded file must be a non-empty zip").WithCause(err)
		}
		return invalidParameter("Could not unzip uploaded file. Please check your file, then try to upload again.").WithCause(err)
	}
	if errors.Is(err, image.ErrTooLarge) || errors.Is(err, image.ErrPackageTooLarge) {
		return invalidParameter("Unzipped size must be smaller than %d bytes", image.MaxUnpacked).WithCause(err)
	}
	return internal(err)
}

// checkStorage refuses a package of size more bytes that does not fit into the
// account's code storage.
func (s *Service) checkStorage(region string, size int64) error {
	if s.codeStorage(region)+size > maxCodeStorage {
		return byUser(api.NewCodeStorageExceededException("Code storage limit exceeded."))
	}
	return nil
}

// codeStorage sums up the packages of all versions of functions and layers of a
// Region. As on AWS each version counts, whether or not it shares its package.
func (s *Service) codeStorage(region string) (sum int64) {
	for _, e := range s.entries.list(region) {
		sum += e.function.Value.Config.Code.Size
		for i := range e.versions {
			sum += e.versions[i].Value.Config.Code.Size
		}
	}
	for v := range s.layerVersions.Scan(region+"/", "") {
		sum += v.Value.Code.Size
	}
	return sum
}

// drop notes that a package may have lost its last reference, and is deleted
// after grace if so.
func (c *code) drop(digest string, grace time.Duration) {
	due := c.s.opts.Now().Add(grace)
	c.mu.Lock()
	if due.After(c.dropped[digest]) {
		c.dropped[digest] = due
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// dropAll drops every package of a function that changed or is gone.
func (c *code) dropAll(e *entry) {
	e.digests(func(digest string) { c.drop(digest, codeGrace) })
}

// referenced returns the digests that a version of a function or layer refers
// to.
func (c *code) referenced() map[string]bool {
	digests := map[string]bool{}
	for _, e := range c.s.entries.list("") {
		e.digests(func(digest string) { digests[digest] = true })
	}
	for v := range c.s.layerVersions.Scan("", "") {
		digests[v.Value.Code.Digest] = true
	}
	c.s.replicaDigests(func(digest string) { digests[digest] = true })
	return digests
}

// collect deletes dropped packages when nothing can use them any more.
func (c *code) collect() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.s.ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
		if next := c.collectDue(); next > 0 {
			timer.Reset(next)
		}
	}
}

// collectDue deletes what is due and returns when to come again, or 0.
func (c *code) collectDue() time.Duration {
	due, next := c.due()
	if len(due) == 0 {
		return next
	}
	if !c.uploads.TryLock() { // an upload may be about to refer to one of them
		return time.Second
	}
	defer c.uploads.Unlock()
	kept := c.referenced()
	defer c.collectImages(c.s.ctx, c.images())
	for _, digest := range due {
		c.mu.Lock()
		delete(c.dropped, digest)
		c.mu.Unlock()
		if kept[digest] {
			continue
		}
		if err := c.delete(c.s.ctx, digest); err != nil {
			c.s.log.Error("cannot delete unused code package", "digest", digest, "err", err)
			c.drop(digest, codeGrace) // tried again
		}
	}
	return next
}

// collectImages deletes what was pulled for images that are not used any more.
func (c *code) collectImages(ctx context.Context, used []container.Image) {
	if c.s.opts.Containers == nil {
		return
	}
	if err := c.s.opts.Containers.Collect(ctx, used); err != nil && ctx.Err() == nil {
		c.s.log.Error("cannot delete what unused container images left", "err", err)
	}
}

// due returns the packages that are due and the time until the next one is.
func (c *code) due() (digests []string, next time.Duration) {
	now := c.s.opts.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for digest, at := range c.dropped {
		if wait := at.Sub(now); wait <= 0 {
			digests = append(digests, digest)
		} else if next == 0 || wait < next {
			next = wait
		}
	}
	return digests, next
}

func (c *code) delete(ctx context.Context, digest string) error {
	if err := c.blobs.Delete(state.Digest(digest)); err != nil {
		return err
	}
	return c.s.opts.Images.Remove(ctx, digest)
}

// recover brings blobs and images in line with the records when the service
// starts: nothing runs yet, so what is not referred to can go at once, and
// images that are missing are made again.
func (c *code) recover(ctx context.Context) error {
	var used []*configuration
	for f := range c.s.functions.Scan("", "") {
		used = append(used, &f.Value.Config)
		if f.Value.Serving != nil {
			used = append(used, f.Value.Serving)
		}
	}
	for v := range c.s.versions.Scan("", "") {
		used = append(used, &v.Value.Config)
	}
	kept := map[string]bool{}
	var images []container.Image
	for _, config := range used {
		config.digests(func(digest string) { kept[digest] = true })
		if config.Image != nil {
			images = append(images, *config.Image)
		}
	}
	c.collectImages(ctx, images)
	for v := range c.s.layerVersions.Scan("", "") {
		kept[v.Value.Code.Digest] = true
	}
	c.s.replicaDigests(func(digest string) { kept[digest] = true })
	digests, err := c.s.opts.Images.List()
	if err != nil {
		return err
	}
	for _, digest := range digests {
		if !kept[digest] {
			if err := c.delete(ctx, digest); err != nil {
				return err
			}
		}
	}
	for _, config := range used {
		if config.Image != nil {
			continue // it may take long: the life cycle sees to it
		}
		if err := c.prepare(ctx, config); err != nil {
			// One function that cannot run must not keep the others from it.
			c.s.log.Error("cannot restore code package", "digest", config.Code.Digest, "err", err)
		}
	}
	return nil
}

// prepare makes the images that environments of a configuration need, where
// they are missing.
func (c *code) prepare(ctx context.Context, config *configuration) error {
	layers := config.layerDigests()
	for _, digest := range append([]string{config.Code.Digest}, layers...) {
		if err := c.restore(ctx, digest); err != nil {
			return err
		}
	}
	return c.s.opts.Images.Merge(ctx, layers)
}

// restore makes the image of a stored package if it is missing.
func (c *code) restore(ctx context.Context, digest string) error {
	if c.s.opts.Images.Has(digest) {
		return nil
	}
	f, err := c.blobs.Open(state.Digest(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := c.s.opts.Images.Unpack(ctx, f, fi.Size())
	if err == nil && img.Digest != digest {
		err = fmt.Errorf("blob %s is damaged: its content has the digest %s", digest, img.Digest)
	}
	return err
}
