package runtimes

import (
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

// Blank tells whether a runtime that was started with no other variables than Env,
// for no function, can be one with the variables env afterwards: none of them is read
// while a process starts, and there is no wrapper script.
func (r *Runtime) Blank(env map[string]string) bool {
	if r.BootVariables == nil || env[wrapperVariable] != "" {
		return false
	}
	for name, value := range env {
		if own, there := r.Env[name]; there && own == value {
			continue
		}
		if among(systemVariables, name) || among(r.BootVariables, name) {
			return false
		}
	}
	for name := range r.Env {
		if _, there := env[name]; !there {
			return false
		}
	}
	return true
}

// systemVariables are what the dynamic linker and the C library read when a process
// starts, or once and for all when something needs them (ld.so(8), setlocale(3),
// tzset(3), mallopt(3), resolv.conf(5), iconv(1)).
var systemVariables = []string{
	"LD_*", "LC_*", "LANG", "LANGUAGE", "TZ", "TZDIR", "GLIBC_TUNABLES", "MALLOC_*", "GCONV_PATH", "LOCPATH", "NLSPATH",
	"RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES", "GETCONF_DIR",
}

// among tells whether a variable is among those that the last pattern that it
// matches is of: a * stands for any ending, and a ! before it takes out again.
func among(patterns []string, name string) (in bool) {
	for _, p := range patterns {
		p, out := strings.CutPrefix(p, "!")
		if prefix, any := strings.CutSuffix(p, "*"); name == p || any && strings.HasPrefix(name, prefix) {
			in = !out
		}
	}
	return in
}
