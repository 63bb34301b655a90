package worker

import (
	"maps"
	"strconv"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/runtimes"
)

// runtimeAPI is where the guest serves the Runtime API in every sandbox.
const runtimeAPI = "127.0.0.1:9001"

// perClone are the variables whose values differ from one environment of a
// version to another.
var perClone = []string{"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_LOG_STREAM_NAME"}

// variables returns the environment of a function's processes (Lambda
// developer guide, "Defined runtime environment variables"). The customer's
// variables win over the defaults of the runtime, or the image, and lose to the
// reserved ones. With SnapStart the credentials are served instead (proto.Start),
// so that those who ask for them have current ones. In an image the handler is the business of its entry point.
func variables(v *function.Version, rt *runtimes.Runtime, initType, stream, endpoint string, c credentials.Session) map[string]string {
	env := map[string]string{
		// No daemon listens here, so no AWS_XRAY_DAEMON_ADDRESS names one.
		"AWS_XRAY_CONTEXT_MISSING":  "LOG_ERROR",
		"AWS_ENDPOINT_URL":          endpoint,
		"AWS_EC2_METADATA_DISABLED": "true", // there is none; SDKs must not wait for it
	}
	if v.Logging.Format == "JSON" {
		env["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
		env["AWS_LAMBDA_LOG_LEVEL"] = v.Logging.ApplicationLevel
	}
	maps.Copy(env, rt.Env)
	maps.Copy(env, v.Env)
	maps.Copy(env, map[string]string{
		"AWS_REGION":                      v.Region,
		"AWS_DEFAULT_REGION":              v.Region,
		"AWS_LAMBDA_FUNCTION_NAME":        v.Name,
		"AWS_LAMBDA_FUNCTION_VERSION":     v.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(v.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  initType,
		"AWS_LAMBDA_LOG_GROUP_NAME":       v.Logging.Group,
		"AWS_LAMBDA_LOG_STREAM_NAME":      stream,
		"AWS_LAMBDA_RUNTIME_API":          runtimeAPI,
	})
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": c.AccessKeyID, "AWS_SECRET_ACCESS_KEY": c.SecretAccessKey, "AWS_SESSION_TOKEN": c.SessionToken,
	} {
		if delete(env, name); initType != initSnapStart {
			env[name] = value
		}
	}
	if v.Image != nil {
		env["AWS_EXECUTION_ENV"] = "AWS_Lambda_Image"
		return env
	}
	env["_HANDLER"] = v.Handler
	env["LAMBDA_TASK_ROOT"], env["LAMBDA_RUNTIME_DIR"] = taskDir, "/var/runtime"
	return env
}

// served returns credentials as a sandbox serves them.
func served(c credentials.Session) *proto.Credentials {
	return &proto.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expiration: c.Expiration}
}
