"""Errors as the caller, the log and X-Ray see them."""

import json
import os


class Fault(Exception):
    """An error that the runtime itself finds, with AWS's type for it."""

    def __init__(self, error_type, message, trace=None):
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.trace = trace or []


def fault_error(fault, request_id):
    """The error payload of a Fault."""
    return {
        "errorMessage": fault.message,
        "errorType": fault.error_type,
        "requestId": request_id,
        "stackTrace": fault.trace,
    }


def error_of(exc, request_id):
    """The error payload of an exception of the function, and its frames."""
    import traceback

    frames = [(f.filename, f.lineno, f.name, f.line) for f in traceback.extract_tb(exc.__traceback__)]
    # What lies below the bootstrap's own frames is the function's.
    for i, frame in enumerate(frames):
        if not frame[0].startswith("/var/runtime/") and "/bootstrap.py" not in frame[0]:
            frames = frames[i:]
            break
    return {
        "errorMessage": str(exc),
        "errorType": type(exc).__name__,
        "requestId": request_id,
        "stackTrace": traceback.format_list(frames),
        "frames": frames,
    }


def xray_cause(error):
    """The X-Ray cause of an error as JSON, or '' where it is too long for a header."""
    frames = error.get("frames")
    error_type = error["errorType"] if frames is not None else "LambdaValidationError"
    frames = frames or ()
    cause = json.dumps(
        {
            "working_directory": os.getcwd(),
            "exceptions": [
                {
                    "message": error["errorMessage"],
                    "type": error_type,
                    "stack": [{"label": name, "path": path, "line": line} for path, line, name, _ in frames],
                }
            ],
            "paths": list({frame[0] for frame in frames}),
        }
    )
    return cause if len(cause) < 1024 * 1024 else ""


def log_line(error):
    """The lines of an error in a text log."""
    words = "[ERROR]"
    if error["errorType"]:
        words += " " + error["errorType"]
        if error["errorMessage"]:
            words += ":"
    if error["errorMessage"]:
        words += " " + error["errorMessage"]
    lines = [words, "Traceback (most recent call last):"]
    for entry in error["stackTrace"]:
        for line in entry.splitlines() or [""]:
            text = line.lstrip(" ")
            # Log viewers trim blanks at the start of a line.
            lines.append("\u00a0" * (len(line) - len(text)) + text)
    return lines
