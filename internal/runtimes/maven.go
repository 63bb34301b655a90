package runtimes

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// mavenCentral is where Maven fetches from unless its settings name a mirror.
const mavenCentral = "https://repo1.maven.org/maven2/"

const maxJar = 32 << 20

// javaNative is the client's native library in its directory.
const javaNative = "lib/libaws-lambda-jni.so"

// jar is one file in a Maven repository, by its digest: what another repository
// serves under its name is not taken.
type jar struct {
	group, artifact, version string
	sha256                   string
}

func (j jar) name() string { return j.artifact + "-" + j.version + ".jar" }

func (j jar) path() string {
	return path.Join(strings.ReplaceAll(j.group, ".", "/"), j.artifact, j.version, j.name())
}

// jars is a set of files that belong together.
type jars []jar

// javaClient is AWS's runtime interface client for Java and what it needs, as
// they are in AWS's own runtimes.
var javaClient = jars{
	{"com.amazonaws", "aws-lambda-java-core", "1.4.0", "575c24393cc1ad645e83e618956eabd89ffe8cc09efae2cb62bc6589154d68ed"},
	{"com.amazonaws", "aws-lambda-java-serialization", "1.4.1", "0ab04580117a1a326c7abea912331c77bec1292ce0c22285eb2d40563145dd9b"},
	{"com.amazonaws", "aws-lambda-java-runtime-interface-client", "2.10.1", "b0dd01f45b7258da0e32ade0bff950b12d0cf279ccebf416ad8c3795af21f1db"},
	{"software.amazon.awssdk", "utils-lite", "2.34.0", "efaf784f07ae526f0b5c89d71ef21cf16636131c47d44616e3df9bedc3f4f89a"},
}

func (all jars) digest() string {
	parts := make([]string, len(all))
	for i, j := range all {
		parts[i] = j.sha256
	}
	return hexDigest(parts...)
}

func (all jars) classPath() string {
	paths := make([]string, len(all))
	for i, j := range all {
		paths[i] = path.Join(runtimeDir, "lib", j.name())
	}
	return strings.Join(paths, ":")
}

func (all jars) dir(r *Registry) string {
	return filepath.Join(r.dir, "added", "java-client", all.digest()[:32])
}

// missing implements companion.
func (javaVM) missing(r *Registry, s spec) string {
	if _, err := os.Stat(javaClient.dir(r)); err == nil {
		return ""
	}
	return fmt.Sprintf("Run 'lapwing runtimes add %s': AWS's runtime interface client for Java is not here yet.", s.id)
}

// add implements companion: it fetches the client from a Maven repository.
func (javaVM) add(ctx context.Context, r *Registry, f *fetcher) error {
	dir := javaClient.dir(r)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	repository := mavenRepository(r.home)
	return makeDir(dir, func(tmp string) error {
		if err := os.Mkdir(filepath.Join(tmp, "lib"), 0o755); err != nil {
			return err
		}
		for _, j := range javaClient {
			sum, err := hex.DecodeString(j.sha256)
			if err != nil {
				return err
			}
			a := artifact{name: j.artifact + " " + j.version, url: repository + j.path(), hash: sha256.New, sum: sum, size: maxJar}
			if err := f.file(ctx, tmp, a, func(got *os.File) error { return keepJar(got, filepath.Join(tmp, "lib", j.name())) }); err != nil {
				return fmt.Errorf("maven: %w", err)
			}
		}
		return unpackNative(filepath.Join(tmp, "lib"), filepath.Join(tmp, javaNative))
	})
}

func keepJar(from *os.File, path string) error {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// unpackNative takes the client's native library out of its jar, where every
// start would have to do so otherwise.
func unpackNative(lib, to string) error {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch_64"}[runtime.GOARCH]
	i := slices.IndexFunc(javaClient, func(j jar) bool { return strings.HasSuffix(j.artifact, "runtime-interface-client") })
	z, err := zip.OpenReader(filepath.Join(lib, javaClient[i].name()))
	if err != nil {
		return err
	}
	defer z.Close()
	name := "jni/libaws-lambda-jni.linux-" + arch + ".so"
	in, err := z.Open(name)
	if err != nil {
		return fmt.Errorf("maven: the client has no %s: %w", name, err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxJar))
	return errors.Join(err, out.Close())
}

// mavenRepository returns the mirror of Maven Central that Maven's settings
// name, or Maven Central itself.
func mavenRepository(home string) string {
	var settings struct {
		Mirrors []struct {
			Of  string `xml:"mirrorOf"`
			URL string `xml:"url"`
		} `xml:"mirrors>mirror"`
	}
	for _, file := range []string{filepath.Join(home, ".m2/settings.xml"), "/etc/maven/settings.xml"} {
		text, err := os.ReadFile(file)
		if err != nil || xml.Unmarshal(text, &settings) != nil {
			continue // most people have none
		}
		for _, m := range settings.Mirrors {
			of := strings.Split(m.Of, ",")
			if slices.Contains(of, "central") || slices.Contains(of, "*") || slices.Contains(of, "external:*") {
				return strings.TrimSuffix(strings.TrimSpace(m.URL), "/") + "/"
			}
		}
	}
	return mavenCentral
}
