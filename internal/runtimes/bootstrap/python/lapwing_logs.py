"""Logging as Lambda has it: a handler on the root logger, in AWS's text or
JSON format, that marks each record with the request id.
"""

import os
import sys
import time

FRAME_TEXT = 0xA55A0003
FRAME_JSON = 0xA55A0002
# By tens of Python's levels: NOTSET, DEBUG, INFO, WARNING, ERROR, CRITICAL.
FRAME_LEVELS = (0, 0x08, 0x0C, 0x10, 0x14, 0x18)
JSON_TIME = "%Y-%m-%dT%H:%M:%SZ"

# The attributes of a LogRecord that are no "extra" of the function.
RESERVED = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno funcName "
    "created msecs relativeCreated thread threadName processName process taskName aws_request_id tenant_id "
    "_frame_type".split()
)


class LogSink:
    """Writes log records: framed to a descriptor that the platform gave, or to
    standard output."""

    def __init__(self, fd):
        self._fd = None if fd is None else int(fd)

    def log(self, msg, frame_type=None):
        if self._fd is None:
            _print(msg)
        else:
            # A frame is a whole record, without a line feed at its end.
            self._frame(frame_type or FRAME_TEXT, msg.removesuffix("\n"))

    def log_error(self, lines, frame_type):
        if self._fd is None:
            # Standard output carries lines: one record is one line.
            _print("\r".join(lines) + "\n")
        else:
            self._frame(frame_type, "\n".join(lines))

    def _frame(self, frame_type, msg):
        body = msg.encode("utf-8", "backslashreplace")
        now = time.time_ns() // 1000
        data = frame_type.to_bytes(4, "big") + len(body).to_bytes(4, "big") + now.to_bytes(8, "big") + body
        while data:
            data = data[os.write(self._fd, data) :]


def _print(text):
    # What UTF-8 does not have must not break logging.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))


class Logs:
    def __init__(self, sink, log_format, level):
        self._sink = sink
        self._json = (log_format or "").upper() == "JSON"
        self._level = {None: "", "TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(level, level).upper()
        self._request_id = ""
        self._tenant_id = None

    def set_invocation(self, request_id, tenant_id):
        self._request_id = request_id
        self._tenant_id = tenant_id

    def install(self):
        """Adds the handler to the root logger as soon as logging is imported,
        which a function that does not log never does."""
        OnImport.install("logging", self._add_handler)

    def _add_handler(self, logging):
        logs = self
        logging.Formatter.converter = time.gmtime

        class LambdaLoggerHandler(logging.Handler):
            log_sink = logs._sink

            def emit(self, record):
                record.aws_request_id = logs._request_id
                record.tenant_id = logs._tenant_id
                base = FRAME_JSON if logs._json else FRAME_TEXT
                frame = base | FRAME_LEVELS[min(50, max(0, record.levelno)) // 10]
                self.log_sink.log(self.format(record), frame)

        handler = LambdaLoggerHandler()
        if self._json:
            handler.setFormatter(_json_formatter(logging))
        else:
            handler.setFormatter(
                logging.Formatter(
                    "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S"
                )
            )
        root = logging.getLogger()
        if self._level in logging._nameToLevel:
            root.setLevel(self._level)
        root.addHandler(handler)

    def error(self, error):
        """Logs an error payload."""
        from lapwing_faults import log_line

        if not self._json:
            self._sink.log_error(log_line(error), FRAME_TEXT | FRAME_LEVELS[4])
            return
        import json

        record = {"timestamp": time.strftime(JSON_TIME, time.gmtime()), "log_level": "ERROR"}
        record.update(error)
        self._sink.log_error([json.dumps(record, ensure_ascii=False)], FRAME_JSON | FRAME_LEVELS[4])


class OnImport:
    """A finder that calls a function with a module when it has been imported."""

    @classmethod
    def install(cls, name, then):
        if name in sys.modules:
            then(sys.modules[name])
        else:
            sys.meta_path.insert(0, cls(name, then))

    def __init__(self, name, then):
        self._name = name
        self._then = then

    def find_spec(self, name, path, target=None):
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                self._then(module)

            spec.loader.exec_module = exec_module
        return spec


def _json_formatter(logging):
    import json

    encode = json.JSONEncoder(ensure_ascii=False).encode

    class JsonFormatter(logging.Formatter):
        def __init__(self):
            super().__init__(datefmt=JSON_TIME)

        def format(self, record):
            level = min(50, max(0, record.levelno)) // 10 * 10
            result = {
                "timestamp": self.formatTime(record, self.datefmt),
                "level": logging.getLevelName(level),
                "message": record.getMessage(),
                "logger": record.name,
            }
            if record.exc_info and record.exc_info[0]:
                import traceback

                kind, value, tb = record.exc_info
                result["stackTrace"] = traceback.format_tb(tb)
                result["errorType"] = kind.__name__
                result["errorMessage"] = str(value)
            result["requestId"] = record.aws_request_id
            if record.exc_info:
                result["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
            if record.tenant_id is not None:
                result["tenantId"] = record.tenant_id
            for key, value in record.__dict__.items():
                if value is not None and key not in RESERVED and key not in result:
                    result[key] = value
            return encode(result) + "\n"

    return JsonFormatter()
