package runtimes

import "slices"

// wrapperVariable names a script of the function that starts the runtime: it
// gets the runtime's command as its arguments.
const wrapperVariable = "AWS_LAMBDA_EXEC_WRAPPER"

// wrapperScript runs the wrapper $0, with AWS's exit codes where it can't.
const wrapperScript = `[ -f "$0" ] || { echo "$0: does not exist" >&2; exit 127; }
[ -x "$0" ] || { echo "$0: is not an executable" >&2; exit 126; }
exec "$0" "$@"`

// CommandFor returns the command that starts the runtime in an environment of
// memoryMB MiB whose variables are env: Command, with the heap fitted to the
// memory as AWS does, and behind the function's wrapper script where it names
// one. The bootstrap of an OCI image does both itself. It is nil for the
// provided runtimes, which have neither.
func (r *Runtime) CommandFor(memoryMB int, env map[string]string) []string {
	if len(r.Command) == 0 {
		return nil
	}
	command := slices.Clone(r.Command)
	if r.language == nil {
		return command
	}
	command = r.language.fit(command, memoryMB, env)
	if wrapper := env[wrapperVariable]; wrapper != "" {
		command = append([]string{"/bin/sh", "-c", wrapperScript, wrapper}, command...)
	}
	return command
}
