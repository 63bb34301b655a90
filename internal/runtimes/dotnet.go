package runtimes

import (
	"fmt"
	"path/filepath"
	"slices"
)

// dotNet is the language of the dotnet runtimes.
type dotNet struct{}

func (dotNet) name() string           { return "dotnet" }
func (dotNet) product() string        { return ".NET" }
func (dotNet) executable(spec) string { return "dotnet" }

func (dotNet) places(spec) (system, home []string) {
	return []string{"/usr/lib/dotnet/dotnet", "/usr/share/dotnet/dotnet", "/usr/local/share/dotnet/dotnet", "/opt/dotnet/dotnet"}, []string{".dotnet/dotnet"}
}

// version tells the newest of the runtimes beside the program that is of the
// release: one dotnet has several.
func (l dotNet) version(s spec, program string, _ func(...string) (string, error)) (string, error) {
	if v := l.newest(s, filepath.Dir(program)); v != "" {
		return v, nil
	}
	return "", fmt.Errorf("it has no Microsoft.NETCore.App %s", s.release)
}

// recorded: AWS's images have dotnet's folders beside its program.
func (l dotNet) recorded(s spec, prefix string) string {
	return l.newest(s, filepath.Join(prefix, "bin"))
}

func (dotNet) newest(s spec, root string) string {
	found, _ := filepath.Glob(filepath.Join(root, "shared/Microsoft.NETCore.App", s.release+".*"))
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	found = slices.DeleteFunc(found, func(v string) bool { return !releaseVersion.MatchString(v) })
	if len(found) == 0 {
		return ""
	}
	return slices.MaxFunc(found, compareVersions)
}

func (dotNet) prefix(program string) string { return filepath.Dir(program) }

func (dotNet) relocated(spec, string) []string { return nil }

// registry: none that Lapwing uses has .NET.
func (dotNet) registry(spec, string) (source, error) { return nil, nil }

// dotnetBootstrap starts a function that is a program of its own, which brings
// Amazon.Lambda.RuntimeSupport along. For a handler in a class library AWS's
// runtime has that package; no registry that Lapwing uses holds it.
const dotnetBootstrap = `#!/bin/sh
case "$_HANDLER" in
*::*)
	echo "The handler $_HANDLER is in a class library, which needs AWS's own bootstrap: run 'lapwing runtimes add' for this runtime with --image and one of AWS's base images, or make the function an executable assembly." >&2
	exit 1 ;;
esac
exec /var/lang/dotnet exec "/var/task/$_HANDLER.dll"
`

func (dotNet) bootstrap(r *Registry, _ spec, _ interpreter) (dir, digest string, err error) {
	t := tree{"bootstrap": file(dotnetBootstrap)}
	dir, err = writeTree(filepath.Join(r.dir, "bootstrap"), t)
	return dir, t.digest(), err
}

func (dotNet) command(spec) []string { return []string{"/bin/sh", runtimeDir + "/bootstrap"} }

func (dotNet) fit(command []string, _ int, _ map[string]string) []string { return command }

func (dotNet) environment(spec) map[string]string {
	return map[string]string{"DOTNET_ROOT": langDir, "DOTNET_CLI_TELEMETRY_OPTOUT": "1", "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
}
