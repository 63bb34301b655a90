"""Loads the function's handler and serves invocations.

It is written from the public description of the Lambda Runtime API and of the
Python programming model. What a start does not need (json, logging, traceback)
is imported where it is used, because each import costs time and file system
calls; the Go tests watch over that.
"""

import os
import sys

from lapwing_client import RuntimeClient
from lapwing_context import LambdaContext, parse_header
from lapwing_faults import Failure, Fault
from lapwing_json import Encoder, loads
from lapwing_logs import LogSink, Logs

UNHANDLED_WARNING = (
    "LAMBDA_WARNING: Unhandled exception. "
    "The most likely cause is an issue in the function code. "
    "However, in rare cases, a Lambda runtime update can cause unexpected function behavior. "
    "For functions using managed runtimes, runtime updates can be triggered by a function change, "
    "or can be applied automatically. "
    "To determine if the runtime has been updated, check the runtime version in the INIT_START log entry. "
    "If this error correlates with a change in the runtime version, "
    "you may be able to mitigate this error by temporarily rolling back to the previous runtime version. "
    "For more information, see https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html\r"
)


def load_handler(name):
    """Imports the function's module and returns its handler."""
    modname, dot, fname = name.rpartition(".")
    if not dot:
        raise Fault(
            "Runtime.MalformedHandlerName",
            f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)",
        )
    if modname.split(".")[0] in sys.builtin_module_names:
        raise Fault(
            "Runtime.BuiltInModuleConflict",
            f"Cannot use built-in module {modname} as a handler module",
        )
    try:
        from importlib import import_module

        module = import_module(modname.replace("/", "."))
    except ImportError as e:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{modname}': {e}")
    except SyntaxError as e:
        trace = [f'  File "{e.filename}" Line {e.lineno}\n    {e.text}']
        raise Fault("Runtime.UserCodeSyntaxError", f"Syntax error in module '{modname}': {e}", trace)
    try:
        return getattr(module, fname)
    except AttributeError:
        raise Fault("Runtime.HandlerNotFound", f"Handler '{fname}' missing on module '{modname}'")


def unmarshal(body, content_type):
    if content_type != "application/json":
        return body
    try:
        return loads(body)
    except Exception as e:
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {e}")


def marshal(encoder, value):
    if isinstance(value, bytes):
        return value, "application/unknown"
    try:
        return encoder.encode(value).encode("utf-8"), "application/json"
    except Exception as e:
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {e}")


def invoke(handler, encoder, invocation):
    """Runs the handler and returns (result, content type, None) or (None, None, failure)."""
    try:
        headers = invocation.headers
        context = LambdaContext(
            invocation.request_id,
            parse_header(headers, "lambda-runtime-client-context", "Client Context"),
            parse_header(headers, "lambda-runtime-cognito-identity", "Cognito Identity"),
            int(headers.get("lambda-runtime-deadline-ms", "0")),
            headers.get("lambda-runtime-invoked-function-arn"),
            headers.get("lambda-runtime-aws-tenant-id"),
        )
        event = unmarshal(invocation.body, headers.get("content-type", "application/json"))
        response = handler(event, context)
        result, content_type = marshal(encoder, response)
        return result, content_type, None
    except Exception as e:
        return None, None, Failure.of(e, invocation.request_id)


def set_trace(trace_id):
    if trace_id:
        os.environ["_X_AMZN_TRACE_ID"] = trace_id
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)


def add_site_builtins():
    """Adds what the site module adds to builtins. Python runs without it: it
    looks for customisations in many places and adds the host's packages."""
    import builtins

    import _sitebuiltins

    eof = "Ctrl-D (i.e. EOF)"
    builtins.quit = _sitebuiltins.Quitter("quit", eof)
    builtins.exit = _sitebuiltins.Quitter("exit", eof)
    builtins.help = _sitebuiltins._Helper()


def watch_for_snapshot():
    """Begins the watch over a start of which a snapshot may be taken, and
    returns it. The function opted in to that, or is not to know of it."""
    asked = os.environ.pop("_LAPWING_RESTORABLE", None)
    opted_in = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
    if not asked and not opted_in:
        return None
    from lapwing_snapshot import Snapshot

    return Snapshot(hooks=opted_in)


def main():
    add_site_builtins()
    # The function's own modules come first, then those of its layers, as on AWS.
    task = os.environ.get("LAMBDA_TASK_ROOT", "/var/task")
    release = f"{sys.version_info.major}.{sys.version_info.minor}"
    sys.path[0:0] = [task, f"/opt/python/lib/python{release}/site-packages", "/opt/python"]
    # What came with the interpreter, such as boto3, comes last.
    sys.path.append(f"{sys.prefix}/lib/python{release}/site-packages")

    sink = LogSink(os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", None))
    logs = Logs(sink, os.environ.get("AWS_LAMBDA_LOG_FORMAT"), os.environ.get("AWS_LAMBDA_LOG_LEVEL"))
    client = RuntimeClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
    logs.install()
    snapshot = watch_for_snapshot()

    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as e:
        import logging

        failure = Failure.of(e, "")
        logging.warning(UNHANDLED_WARNING)
        logs.error(failure.payload)
        client.init_error(failure.error_type, failure.body())
        sys.exit(1)

    if snapshot:
        snapshot.wait(client, logs)
    encoder = Encoder()
    invocation = client.next()
    while True:
        headers = invocation.headers
        logs.set_invocation(invocation.request_id, headers.get("lambda-runtime-aws-tenant-id"))
        set_trace(headers.get("lambda-runtime-trace-id"))
        result, content_type, failure = invoke(handler, encoder, invocation)
        if failure is None:
            invocation = client.respond_and_next(invocation.request_id, result, content_type)
        else:
            logs.error(failure.payload)
            invocation = client.fail_and_next(
                invocation.request_id, failure.error_type, failure.body(), failure.xray_cause()
            )
