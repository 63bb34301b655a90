package runtimes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// language is what one language's runtimes have in common: how an interpreter
// is found, which version it has, how it is started and what it needs besides.
type language interface {
	// name is the language's name in a runtime version, as AWS writes it.
	name() string
	// product is what people call the interpreter.
	product() string
	// executable is the name of the interpreter's program.
	executable(s spec) string
	// places returns where version managers and people who unpack archives keep
	// interpreters: patterns of paths of this host, and of paths below the home
	// directory.
	places(s spec) (system, home []string)
	// version tells the version of the interpreter at program. What has to run
	// for that is run by ask, which returns its standard output.
	version(s spec, program string, ask func(args ...string) (string, error)) (string, error)
	// recorded tells the version from files below an interpreter's prefix,
	// without running anything, or "" where they do not tell.
	recorded(s spec, prefix string) string
	// prefix is the directory that makes an interpreter at program complete; it
	// becomes /var/lang.
	prefix(program string) string
	// relocated returns the variables with which the interpreter of a user land
	// runs where its /usr is at usr.
	relocated(s spec, usr string) []string
	// registry returns the package registry that holds the interpreter, or nil.
	registry(s spec, home string) (source, error)
	// bootstrap returns the directory of the program that talks to the Runtime
	// API with this interpreter, and what identifies it.
	bootstrap(r *Registry, s spec, in interpreter) (dir, digest string, err error)
	// command starts the bootstrap in the sandbox; fit makes it fit an
	// environment of memoryMB MiB with the variables env.
	command(s spec) []string
	fit(command []string, memoryMB int, env map[string]string) []string
	// environment returns the variables that only this language's runtimes have.
	environment(s spec) map[string]string
}

// cloning is a language whose bootstrap takes part in snapshots of functions that
// know nothing of them: see Runtime.Clones.
type cloning interface{ clones() }

func (nodeJS) clones()  {}
func (cPython) clones() {}
func (cRuby) clones()   {}

// blank is a language whose bootstrap can be started for no function, and told
// afterwards for which. It has Runtime.BootVariables.
type blank interface{ bootVariables() []string }

// configured is a language whose interpreters have files in /etc.
type configured interface {
	// etc returns the files that an interpreter at prefix needs in /etc, from
	// those in etcDir.
	etc(prefix, etcDir string) (tree, error)
}

// companion is a language whose runtimes need something besides the interpreter
// that is not embedded here.
type companion interface {
	// missing says what to do where that is not there; "" where it is.
	missing(r *Registry, s spec) string
	add(ctx context.Context, r *Registry, f *fetcher) error
}

// spec describes one runtime id.
type spec struct {
	id       string
	language language // nil: provided
	release  string   // the release line: "22" of Node.js, "3.13" of Python
}

var specs = []spec{
	{"nodejs20.x", nodeJS{}, "20"},
	{"nodejs22.x", nodeJS{}, "22"},
	{"nodejs24.x", nodeJS{}, "24"},
	{"python3.11", cPython{}, "3.11"},
	{"python3.12", cPython{}, "3.12"},
	{"python3.13", cPython{}, "3.13"},
	{"python3.14", cPython{}, "3.14"},
	{"java17", javaVM{}, "17"},
	{"java21", javaVM{}, "21"},
	{"java25", javaVM{}, "25"},
	{"ruby3.2", cRuby{}, "3.2"},
	{"ruby3.3", cRuby{}, "3.3"},
	{"ruby3.4", cRuby{}, "3.4"},
	{"ruby4.0", cRuby{}, "4.0"},
	{"dotnet8", dotNet{}, "8"},
	{"dotnet10", dotNet{}, "10"},
	{"provided.al2023", nil, ""},
	{"provided.al2", nil, ""},
}

// IDs returns the runtime ids that Lapwing knows, whether or not something
// serves them here.
func IDs() []string {
	ids := make([]string, len(specs))
	for i, s := range specs {
		ids[i] = s.id
	}
	return ids
}

func lookup(id string) (spec, bool) {
	i := slices.IndexFunc(specs, func(s spec) bool { return s.id == id })
	if i < 0 {
		return spec{}, false
	}
	return specs[i], true
}

// covers reports whether an interpreter's version belongs to the release line.
func (s spec) covers(version string) bool {
	return version == s.release || strings.HasPrefix(version, s.release+".")
}

// how tells what to do where nothing serves the runtime.
func (s spec) how(addable bool) string {
	install := fmt.Sprintf("install %s %s on this host", s.language.product(), s.release)
	image := fmt.Sprintf("name one of AWS's base images with 'lapwing runtimes add %s --image REFERENCE'", s.id)
	if addable {
		return fmt.Sprintf("Run 'lapwing runtimes add %s', %s, or %s.", s.id, install, image)
	}
	return strings.ToUpper(install[:1]) + install[1:] + ", or " + image + "."
}

// environment returns the variables that the runtime defines, as on AWS.
func environment(s spec) map[string]string {
	env := map[string]string{
		"LANG":               "en_US.UTF-8",
		"TZ":                 ":UTC",
		"PATH":               "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"LD_LIBRARY_PATH":    "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
		"LAMBDA_TASK_ROOT":   taskDir,
		"LAMBDA_RUNTIME_DIR": runtimeDir,
	}
	if s.language == nil {
		return env
	}
	env["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + s.id
	maps.Copy(env, s.language.environment(s))
	return env
}
