"""JSON for events and results.

Importing json takes as long as starting the interpreter, because it brings
regular expressions along. Its inner part is in C and needs none of that, so
that is used directly; where it is not as expected, or fails, the json module
does the work again and says what is wrong.
"""

import os
import sys

try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    make_encoder = None

BLANKS = " \t\n\r"


class _Scanner:
    """What make_scanner takes its settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__
    memo = {}


_scan = None if make_encoder is None else make_scanner(_Scanner())


def loads(text):
    """Decodes JSON, given as str or bytes."""
    if _scan is not None and "json" not in sys.modules:
        try:
            s = text if isinstance(text, str) else text.decode("utf-8")
            start = len(s) - len(s.lstrip(BLANKS))
            value, end = _scan(s, start)
            if not s[end:].strip(BLANKS):
                return value
        except (StopIteration, ValueError, RecursionError):
            pass
    import json

    return json.loads(text)


class Encoder:
    """Encodes JSON, decimal.Decimal as a number included."""

    def __init__(self):
        # From Python 3.12 on AWS leaves characters beyond ASCII as they are.
        self._ascii = sys.version_info < (3, 12)
        self._decimals = None

    def encode(self, value):
        self._decimals = None
        text = self._fast(value)
        if text is None:
            import json

            self._decimals = None
            text = json.JSONEncoder(ensure_ascii=self._ascii, default=self._default).encode(value)
        if self._decimals:
            # The encoder has no way to write a number of our own, so each was
            # left as a string that nothing else can contain.
            for mark, number in self._decimals:
                text = text.replace(f'"{mark}"', number, 1)
        return text

    def _fast(self, value):
        if make_encoder is None:
            return None
        string = encode_basestring_ascii if self._ascii else encode_basestring
        if isinstance(value, str):
            return string(value)
        try:
            iterencode = make_encoder({}, self._default, string, None, ": ", ", ", False, False, True)
            return "".join(iterencode(value, 0))
        except (TypeError, ValueError, RecursionError):
            return None  # the json module says what is wrong

    def _default(self, value):
        decimal = sys.modules.get("decimal")  # not loaded: it can't be one
        if decimal is None or not isinstance(value, decimal.Decimal):
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
        if value.is_nan():
            return float("nan")
        if self._decimals is None:
            self._decimals = []
            self._nonce = os.urandom(16).hex()
        mark = f"{self._nonce}:{len(self._decimals)}"
        self._decimals.append((mark, str(value)))
        return mark
