package runtimes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// javaVM is the language of the java runtimes. Its bootstrap is AWS's own
// runtime interface client, from Maven Central (see maven.go).
type javaVM struct{}

func (javaVM) name() string           { return "java" }
func (javaVM) product() string        { return "OpenJDK" }
func (javaVM) executable(spec) string { return "java" }

func (javaVM) places(s spec) (system, home []string) {
	system = []string{
		"/usr/lib/jvm/*-" + s.release + "-*/bin/java",
		"/usr/lib/jvm/*-" + s.release + "/bin/java",
		"/opt/*-" + s.release + "*/bin/java",
	}
	if java := os.Getenv("JAVA_HOME"); java != "" {
		system = append([]string{filepath.Join(java, "bin/java")}, system...)
	}
	return system, []string{".sdkman/candidates/java/" + s.release + ".*/bin/java", ".asdf/installs/java/*-" + s.release + ".*/bin/java", ".local/share/mise/installs/java/*" + s.release + ".*/bin/java"}
}

var javaVersion = regexp.MustCompile(`(?m)^JAVA_VERSION="([\d.]+)"`)

// version reads the file that says what a JDK is: starting one takes long.
func (l javaVM) version(s spec, program string, _ func(...string) (string, error)) (string, error) {
	home := filepath.Dir(filepath.Dir(program))
	if v := l.recorded(s, home); v != "" {
		return v, nil
	}
	return "", fmt.Errorf("it is no program of a JDK: %s names no version", filepath.Join(home, "release"))
}

func (javaVM) recorded(_ spec, prefix string) string {
	if m := javaVersion.FindStringSubmatch(recordIn(filepath.Join(prefix, "release"))); m != nil {
		return m[1]
	}
	return ""
}

func (javaVM) prefix(program string) string { return filepath.Dir(filepath.Dir(program)) }

func (javaVM) relocated(spec, string) []string { return nil }

func (javaVM) registry(s spec, _ string) (source, error) { return newDebian(s) }

func (javaVM) bootstrap(r *Registry, _ spec, _ interpreter) (dir, digest string, err error) {
	return javaClient.dir(r), javaClient.digest(), nil
}

// command is as on AWS: one processor's worth of collector and compiler start
// fastest, and the JDK's archive of its own classes is used where it is there.
func (javaVM) command(spec) []string {
	return []string{
		langDir + "/bin/java", "-XX:+UseSerialGC", "-XX:+TieredCompilation", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+ErrorFileToStderr",
		"--add-opens=java.base/java.io=ALL-UNNAMED", "-Djava.net.preferIPv4Stack=true",
		"-Dorg.crac.Core.Compat=com.amazonaws.services.lambda.crac",
		"-Dcom.amazonaws.services.lambda.runtime.api.client.runtimeapi.NativeClient.JNI=" + runtimeDir + "/" + javaNative,
		"-classpath", javaClient.classPath(), "com.amazonaws.services.lambda.runtime.api.client.AWSLambda",
	}
}

// javaHeapPercent of the memory is the heap, as on AWS.
const javaHeapPercent = 85

// fit sizes the heap, which the function's JAVA_TOOL_OPTIONS may not undo on AWS
// either: options of the command line win. The client takes the handler as its
// argument.
func (javaVM) fit(command []string, memoryMB int, env map[string]string) []string {
	command = slices.Insert(command, 1, fmt.Sprintf("-XX:MaxHeapSize=%dk", memoryMB*1024*javaHeapPercent/100))
	return append(command, env["_HANDLER"])
}

func (javaVM) environment(spec) map[string]string { return nil }

// etc returns the files in /etc that a JDK at prefix links to: distributions
// keep its configuration there. etcDir is where they are on this host.
func (javaVM) etc(prefix, etcDir string) (tree, error) {
	files := tree{}
	err := filepath.WalkDir(prefix, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		below, ok := strings.CutPrefix(target, "/etc/")
		if !ok || strings.HasPrefix(below, "ssl/") {
			return nil // certificates are the base's
		}
		data, err := os.ReadFile(filepath.Join(etcDir, below))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // as it is for this host's own Java
		}
		files[below] = entry{data: data}
		return err
	})
	return files, err
}
