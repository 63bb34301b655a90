package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"lapwing.dev/lapwing/internal/sandbox"
)

// layoutImage: the directory is the root of an OCI image, which brings the user
// land, the interpreter and the bootstrap.
const layoutImage = "image"

// imagePrefix begins the names of the directories of images; a digest follows.
const imagePrefix = "image-"

// maxImageBytes limits an image with all that is not taken from it.
const maxImageBytes = 10 << 30

// imageParts are what a runtime has of an image.
var imageParts = regexp.MustCompile(`^(bin|sbin|lib|lib64)$|^(usr|etc|var/lang|var/runtime)(/|$)`)

// imageOwn are files of an image's /etc that are an environment's own here.
var imageOwn = []string{"etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/hosts", "etc/resolv.conf", "etc/hostname", "etc/mtab", "etc/machine-id"}

// AddImage makes the root of an OCI image a runtime's, in the place of whatever
// served it: one of AWS's base images for Lambda, or one that is laid out like
// them, with an interpreter of the runtime's release in /var/lang and a bootstrap
// in /var/runtime (none of both for the provided runtimes). reference is an
// image in a registry, for which Docker's credentials are used, or the path of
// an archive of 'docker save' or of an OCI layout. Nothing of the image runs.
func (r *Registry) AddImage(ctx context.Context, id, reference string, progress func(Progress)) error {
	s, ok := lookup(id)
	if !ok {
		return &UnknownError{id}
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	return r.adding(ctx, s, progress, func() error {
		progress(Progress{Step: "look up image " + reference})
		image, err := openImage(ctx, reference)
		if err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
		digest, err := image.Digest()
		if err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
		dir := filepath.Join(r.addedDir(s), imagePrefix+digest.Hex[:32])
		err = makeDir(dir, func(tmp string) error { return fillFromImage(s, image, reference, tmp, progress) })
		if err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
		// The image that was added last is the one that counts, and whoever
		// remembers another looks again.
		now := time.Now()
		return errors.Join(os.Chtimes(dir, now, now), os.Chtimes(filepath.Dir(dir), now, now))
	})
}

// openImage finds an image for this host's architecture.
func openImage(ctx context.Context, reference string) (v1.Image, error) {
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	var image v1.Image
	info, err := os.Stat(reference)
	switch {
	case err == nil && info.IsDir():
		image, err = imageOfLayout(reference, platform)
	case err == nil:
		image, err = tarball.ImageFromPath(reference, nil)
	case filepath.IsAbs(reference) || strings.HasPrefix(reference, "."):
		return nil, err // a path that is not there, and no registry's name
	default:
		var ref name.Reference
		if ref, err = name.ParseReference(reference); err != nil {
			return nil, err
		}
		image, err = remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(platform), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	if config.Architecture != platform.Architecture || config.OS != platform.OS {
		return nil, fmt.Errorf("it is for %s/%s, this host is %s", config.OS, config.Architecture, platform)
	}
	return image, nil
}

func imageOfLayout(dir string, platform v1.Platform) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsImage() && (d.Platform == nil || d.Platform.Satisfies(platform)) {
			return index.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("it has no image for %s", platform)
}

// fillFromImage unpacks an image into an empty directory and describes it.
func fillFromImage(s spec, image v1.Image, reference, dir string, progress func(Progress)) error {
	size := int64(0)
	if layers, err := image.Layers(); err == nil {
		for _, l := range layers {
			n, err := l.Size()
			if err != nil {
				return err
			}
			size += n
		}
	}
	step := fmt.Sprintf("unpack image %s (%d MB)", reference, size>>20)
	progress(Progress{Step: step})
	if err := unpackImage(image, dir); err != nil {
		return err
	}
	version, err := imageVersion(s, dir)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	env := map[string]string{}
	for _, pair := range config.Config.Env {
		if key, value, ok := strings.Cut(pair, "="); ok {
			env[key] = value
		}
	}
	return writeManifest(dir, manifest{ID: s.id, Version: version, Source: "image " + reference + " " + digest.String(), Layout: layoutImage, Env: env})
}

func unpackImage(image v1.Image, dir string) error {
	u, err := newUnpacker(dir)
	if err != nil {
		return err
	}
	defer u.close()
	stream := mutate.Extract(image)
	defer stream.Close()
	flat := io.LimitReader(stream, maxImageBytes)
	err = u.tar(flat, func(name string) string {
		if !imageParts.MatchString(name) || slices.Contains(imageOwn, name) {
			return ""
		}
		return name
	})
	if err != nil {
		return err
	}
	// What is left is padding; the reader's own end must be reached.
	if _, err := io.Copy(io.Discard, flat); err != nil {
		return err
	}
	if err := checkImageDirs(u.root); err != nil {
		return err
	}
	own := etcFiles(nil)
	for _, name := range []string{"passwd", "group", "hosts", "resolv.conf"} {
		if err := u.replace("etc/"+name, own[name].data); err != nil {
			return err
		}
	}
	return nil
}

// imageDirs are the directories of an image that appear in the sandbox.
var imageDirs = []string{"usr", "etc", "var", "var/lang", "var/runtime"}

// checkImageDirs makes sure that those of an unpacked image are directories: a
// link in the place of one would make a part of this host appear in sandboxes.
func checkImageDirs(root *os.Root) error {
	for _, name := range imageDirs {
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("its /%s is not a directory", name)
		}
	}
	return nil
}

// osVersion finds the version of Amazon Linux.
var osVersion = regexp.MustCompile(`(?m)^VERSION_ID="?(\w+)"?$`)

// imageVersion checks that an unpacked image is what a runtime needs, and tells
// the version of its interpreter.
func imageVersion(s spec, root string) (string, error) {
	for _, name := range []string{"bin", "lib"} {
		if dest, err := os.Readlink(filepath.Join(root, name)); err != nil || strings.TrimPrefix(dest, "/") != "usr/"+name {
			return "", fmt.Errorf("its /%s is not a link to /usr/%s: it is not laid out like AWS's base images", name, name)
		}
	}
	if s.language == nil {
		text := recordIn(filepath.Join(root, "usr/lib/os-release"))
		m := osVersion.FindStringSubmatch(text)
		want := strings.TrimPrefix(s.id, "provided.al")
		if m == nil || !strings.Contains(text, `ID="amzn"`) || m[1] != want {
			return "", fmt.Errorf("it is not Amazon Linux %s", want)
		}
		return m[1], nil
	}
	if info, err := os.Stat(filepath.Join(root, runtimeDir, "bootstrap")); err != nil || info.Mode()&0o111 == 0 {
		return "", errors.New("it has no program /var/runtime/bootstrap: it is not laid out like AWS's base images")
	}
	version := s.language.recorded(s, filepath.Join(root, langDir))
	if version == "" || !s.covers(version) {
		return "", fmt.Errorf("its /var/lang has %s %q, and %s needs %s", s.language.product(), version, s.id, s.release)
	}
	return version, nil
}

// findImage returns the image that was added last for a runtime, or "".
func (r *Registry) findImage(s spec) string {
	dirs, _ := filepath.Glob(filepath.Join(r.addedDir(s), imagePrefix+"*")) // a fixed pattern
	newest, at := "", time.Time{}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && info.ModTime().After(at) {
			newest, at = dir, info.ModTime()
		}
	}
	return newest
}

// ofImage makes the runtime of an image.
func ofImage(s spec, in interpreter) *Runtime {
	rt := &Runtime{ID: s.id, Env: maps.Clone(in.env), digest: hexDigest(s.id, in.version, in.origin)}
	maps.Copy(rt.Env, environment(s))
	for _, part := range []string{"/usr", "/etc", langDir, runtimeDir} {
		source := filepath.Join(in.image, part)
		if info, err := os.Stat(source); err == nil && info.IsDir() {
			rt.Mounts = append(rt.Mounts, sandbox.Mount{Source: source, Target: part})
		}
	}
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if dest, err := os.Readlink(filepath.Join(in.image, name)); err == nil {
			rt.Symlinks = append(rt.Symlinks, sandbox.Symlink{Path: name, Dest: dest})
		}
	}
	if s.language == nil {
		rt.Version, rt.Candidates = strings.Replace(s.id, ".", ":", 1), providedCandidates
		return rt
	}
	rt.Version, rt.Command = s.language.name()+":"+in.version, []string{runtimeDir + "/bootstrap"}
	return rt
}
