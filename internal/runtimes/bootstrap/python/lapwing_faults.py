"""Errors as the caller, the log and X-Ray see them."""

import os


class Fault(Exception):
    """An error that the runtime itself finds, with AWS's type for it."""

    def __init__(self, error_type, message, trace=None):
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.trace = trace or []


class Failure:
    """A failed invocation or initialisation: the error payload, and the frames
    of the exception where there was one."""

    __slots__ = ("payload", "frames")

    def __init__(self, message, error_type, request_id, trace, frames=None):
        self.payload = {
            "errorMessage": message,
            "errorType": error_type,
            "requestId": request_id,
            "stackTrace": trace,
        }
        self.frames = frames

    @property
    def error_type(self):
        return self.payload["errorType"]

    @classmethod
    def of(cls, exc, request_id):
        if isinstance(exc, Fault):
            return cls(exc.message, exc.error_type, request_id, exc.trace)
        import traceback

        frames = [(f.filename, f.lineno, f.name, f.line) for f in traceback.extract_tb(exc.__traceback__)]
        # What lies below the bootstrap's own frames is the function's.
        own = os.path.dirname(__file__)
        for i, frame in enumerate(frames):
            if os.path.dirname(frame[0]) != own:
                frames = frames[i:]
                break
        return cls(str(exc), type(exc).__name__, request_id, traceback.format_list(frames), frames)

    def body(self):
        """The payload as it is posted."""
        import json

        # A lone surrogate, which UTF-8 does not have, becomes its JSON escape.
        return json.dumps(self.payload, ensure_ascii=False).encode("utf-8", "backslashreplace")

    def xray_cause(self):
        """The X-Ray cause as JSON, or '' where it is too long for a header."""
        import json

        error_type = "LambdaValidationError" if self.frames is None else self.error_type
        frames = self.frames or ()
        cause = json.dumps(
            {
                "working_directory": os.getcwd(),
                "exceptions": [
                    {
                        "message": self.payload["errorMessage"],
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
