package runtimes

import (
	"fmt"
	"slices"
	"strings"
)

// language says how a runtime's interpreter is found, started and served.
type language int

const (
	languageNone   language = iota // provided: none
	languageNode                   // Node.js
	languagePython                 // CPython
)

// name is the language's name in a runtime version, as AWS writes it.
func (l language) name() string {
	return [...]string{"provided", "nodejs", "python"}[l]
}

// spec describes one runtime id.
type spec struct {
	id       string
	language language
	release  string // the release line: "22" of Node.js, "3.13" of Python
}

var specs = []spec{
	{"nodejs20.x", languageNode, "20"},
	{"nodejs22.x", languageNode, "22"},
	{"nodejs24.x", languageNode, "24"},
	{"python3.11", languagePython, "3.11"},
	{"python3.12", languagePython, "3.12"},
	{"python3.13", languagePython, "3.13"},
	{"provided.al2023", languageNone, ""},
	{"provided.al2", languageNone, ""},
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
	return strings.HasPrefix(version, s.release+".")
}

// executable is the name of the interpreter's program.
func (s spec) executable() string {
	if s.language == languageNode {
		return "node"
	}
	return "python" + s.release
}

// addable reports whether a package registry has the runtime's interpreter:
// Node.js is on npm, Python 3.13 is Debian 13's. No registry that Lapwing uses
// has Python 3.11 and 3.12.
func (s spec) addable() bool {
	return s.language == languageNode || s.id == "python3.13"
}

// how tells what to do where nothing serves the runtime.
func (s spec) how() string {
	switch {
	case s.language == languageNode:
		return fmt.Sprintf("Run 'lapwing runtimes add %s', or install Node.js %s on this host.", s.id, s.release)
	case s.addable():
		return fmt.Sprintf("Run 'lapwing runtimes add %s', or install Python %s on this host.", s.id, s.release)
	}
	return fmt.Sprintf("Install Python %[1]s on this host: as a package of its distribution (python%[1]s) or with 'pyenv install %[1]s'.", s.release)
}

// command returns what starts the runtime's bootstrap in the sandbox.
func (l language) command(s spec) []string {
	if l == languageNode {
		return []string{langDir + "/bin/node", runtimeDir + "/index.js"}
	}
	// -u: what the function prints is in the log at once. -B: nothing is
	// writable for .pyc files, so that trying only costs time. -S: no packages
	// of this host; the bootstrap does what else the site module would.
	return []string{langDir + "/bin/" + s.executable(), "-u", "-B", "-S", runtimeDir + "/bootstrap.py"}
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
	switch s.language {
	case languageNode:
		env["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + s.id
		env["NODE_PATH"] = fmt.Sprintf("/opt/nodejs/node%s/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task", s.release)
	case languagePython:
		env["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + s.id
		env["PYTHONPATH"] = runtimeDir
		env["LC_CTYPE"] = "C.UTF-8"
	}
	return env
}
