package runtimes

import "maps"

// OfImage returns the runtime of a container image that sets the variables env:
// nothing of it is ours.
func OfImage(env map[string]string) *Runtime {
	// What Docker and Lambda set where an image does not. AWS's base images have
	// their own.
	all := map[string]string{
		"PATH":               "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LAMBDA_TASK_ROOT":   taskDir,
		"LAMBDA_RUNTIME_DIR": runtimeDir,
	}
	maps.Copy(all, env)
	return &Runtime{Env: all}
}
