package runtimes

import (
	"fmt"
	"slices"
	"strings"
)

// wrapperVariable names a script of the function that starts the runtime: it
// gets the runtime's command as its arguments.
const wrapperVariable = "AWS_LAMBDA_EXEC_WRAPPER"

// wrapperScript runs the wrapper $0, with AWS's exit codes where it can't.
const wrapperScript = `[ -f "$0" ] || { echo "$0: does not exist" >&2; exit 127; }
[ -x "$0" ] || { echo "$0: is not an executable" >&2; exit 126; }
exec "$0" "$@"`

// CommandFor returns the command that starts the runtime in an environment of
// memoryMB MiB whose variables are env: Command, with the heap of Node.js
// fitted to the memory as AWS does, and behind the function's wrapper script
// where it names one. It is nil for the provided runtimes, which have neither.
func (r *Runtime) CommandFor(memoryMB int, env map[string]string) []string {
	if len(r.Command) == 0 {
		return nil
	}
	command := slices.Clone(r.Command)
	if r.language == languageNode {
		command = slices.Insert(command, 1, nodeFlags(memoryMB, env["NODE_OPTIONS"])...)
	}
	if wrapper := env[wrapperVariable]; wrapper != "" {
		command = append([]string{"/bin/sh", "-c", wrapperScript, wrapper}, command...)
	}
	return command
}

// nodeFlags returns what AWS starts Node.js with: a young generation of a tenth
// of the memory and the rest for the old one, unless the function sizes its
// heap itself.
func nodeFlags(memoryMB int, options string) []string {
	flags := []string{"--expose-gc", "--max-http-header-size=81920"}
	options = strings.ReplaceAll(options, "_", "-")
	if strings.Contains(options, "--max-semi-space-size") || strings.Contains(options, "--max-old-space-size") {
		return flags
	}
	young := memoryMB / 10
	return append(flags,
		fmt.Sprintf("--max-semi-space-size=%d", young/2),
		fmt.Sprintf("--max-old-space-size=%d", memoryMB-young))
}
