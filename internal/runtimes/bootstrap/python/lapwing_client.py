"""A client of the Lambda Runtime API on one keep-alive connection.

It speaks HTTP/1.1 on a plain socket: importing http.client costs about as much
as starting the interpreter several times over. The answer to one invocation
and the request for the next leave in one write (HTTP pipelining); replies come
back in the order of the requests.
"""

import sys
from errno import EMSGSIZE
from posix import preadv
from _socket import AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

PREFIX = "/2018-06-01/runtime"
MAX_HEAD = 2 * 1024 * 1024
MAX_ERROR_TYPE = 1024

# A read of this file, which nobody has, hands requests over to Lapwing and waits
# for the answers: one system call instead of two.
EXCHANGE = 0x6C617077
EXCHANGE_BYTES = 64 * 1024


class Invocation:
    __slots__ = ("request_id", "headers", "body")

    def __init__(self, headers, body):
        self.request_id = headers["lambda-runtime-aws-request-id"]
        self.headers = headers
        self.body = body


class RuntimeClient:
    def __init__(self, address):
        self._local = f"\0lapwing:{address}"
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        version = ".".join(map(str, sys.version_info[:3]))
        self._base = f" HTTP/1.1\r\nHost: {address}\r\nUser-Agent: aws-lambda-python/{version}-lapwing\r\n"
        self._next = f"GET {PREFIX}/invocation/next{self._base}\r\n".encode()
        self._connect()

        self._page = bytearray(EXCHANGE_BYTES)  # of exchanges; None where there are none

    def _connect(self):
        self._buf = b""
        self._closing = False
        # Where Lapwing serves the API, it does so on a Unix socket too, which
        # costs less than TCP.
        self._sock = socket(AF_UNIX, SOCK_STREAM)
        try:
            self._sock.connect(self._local)
            return
        except OSError:
            self._sock.close()
        family = AF_INET6 if ":" in self._host else AF_INET
        self._sock = socket(family, SOCK_STREAM)
        self._sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._sock.connect((self._host, self._port))

    def next(self):
        """Waits for the next event."""
        self._sock.sendall(self._next)
        return self._read_next()

    def respond_and_next(self, request_id, body, content_type):
        """Posts the result of an invocation and waits for the next event."""
        head = self._post(f"/invocation/{request_id}/response", f"Content-Type: {content_type}\r\n", body)
        return self._post_and_next(head, body)

    def fail_and_next(self, request_id, error_type, body, xray_cause):
        """Posts the error of an invocation and waits for the next event."""
        extra = error_headers(error_type)
        if xray_cause:
            extra += f"Lambda-Runtime-Function-XRay-Error-Cause: {xray_cause}\r\n"
        return self._post_and_next(self._post(f"/invocation/{request_id}/error", extra, body), body)

    def init_error(self, error_type, body):
        """Posts an error of initialisation."""
        self._sock.sendall(self._post("/init/error", error_headers(error_type), body) + body)
        self._read()

    def restore_next(self, unfit):
        """Waits until this environment is to go on, of which a snapshot may be
        taken now, unless it is unfit for one: then that is why. It returns what
        differs, in JSON."""
        head = f"Lapwing-Unfit: {on_a_line(unfit)}\r\n" if unfit else ""
        self._sock.sendall(f"GET {PREFIX}/restore/next{self._base}{head}\r\n".encode())
        status, _, body = self._read()
        if status != 200:
            raise RuntimeError(f"Runtime API: restore/next answered {status}: {body.decode('utf-8', 'replace')}")
        return body

    def restore_error(self, error_type, body):
        """Posts an error of what follows a restore."""
        self._sock.sendall(self._post("/restore/error", error_headers(error_type), body) + body)
        self._read()

    def _post(self, path, extra, body):
        return f"POST {PREFIX}{path}{self._base}{extra}Content-Length: {len(body)}\r\n\r\n".encode()

    def _exchange(self, requests):
        """Hands requests over and takes the answers, without those that nobody
        waits for any more. It tells whether the requests were taken."""
        size = len(requests)
        if self._page is None or size > EXCHANGE_BYTES:
            return False
        self._page[:size] = requests
        try:
            size = preadv(EXCHANGE, (self._page,), size)
        except OSError as e:
            if e.errno != EMSGSIZE:
                self._page = None  # there is no such thing here
                return False
            size = 0  # the event is given again
        self._buf += self._page[:size]
        return True

    def _post_and_next(self, head, body):
        requests = b"".join((head, body, self._next))
        taken = self._exchange(requests)
        if not taken:
            self._sock.sendall(requests)
        elif not self._buf:
            return self.next()
        status, headers, reply = self._read()
        if taken and status == 200:
            return Invocation(headers, reply)
        if status != 202:
            sys.stderr.write(f"Runtime API: result answered {status}: {reply.decode('utf-8', 'replace')}\n")
            if status >= 500:
                sys.exit(1)
            if taken and not self._buf:
                return self.next()
            if self._closing:
                # The server never saw the request for the next event.
                self._sock.close()
                self._connect()
                return self.next()
        return self._read_next()

    def _read_next(self):
        status, headers, body = self._read()
        if status != 200:
            sys.stderr.write(f"Runtime API: next answered {status}: {body.decode('utf-8', 'replace')}\n")
            sys.exit(1)
        return Invocation(headers, body)

    def _read(self):
        """Reads one reply: (status, headers by lower-case name, body)."""
        while (end := self._buf.find(b"\r\n\r\n")) < 0:
            if len(self._buf) > MAX_HEAD:
                raise SystemExit("Runtime API: reply with an endless head")
            self._fill()
        lines = self._buf[:end].decode("utf-8", "replace").split("\r\n")
        self._buf = self._buf[end + 4 :]
        status = int(lines[0][9:12])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = self._read_chunked()
        else:
            body = self._take(int(headers.get("content-length", 0)))
        self._closing = headers.get("connection", "").lower() == "close"
        return status, headers, body

    def _read_chunked(self):
        parts = []
        while size := int(self._line(), 16):
            parts.append(self._take(size))
            self._line()
        while self._line():  # trailers
            pass
        return b"".join(parts)

    def _line(self):
        while (end := self._buf.find(b"\n")) < 0:
            self._fill()
        line = self._buf[:end].strip()
        self._buf = self._buf[end + 1 :]
        return line

    def _take(self, n):
        if len(self._buf) >= n:
            taken, self._buf = self._buf[:n], self._buf[n:]
            return taken
        body = bytearray(n)
        have = len(self._buf)
        body[:have] = self._buf
        self._buf = b""
        view = memoryview(body)
        while have < n:
            got = self._sock.recv_into(view[have:])
            if got == 0:
                raise SystemExit("Runtime API: connection closed")  # printed, exit code 1
            have += got
        return bytes(body)

    def _fill(self):
        data = self._sock.recv(65536)
        if not data:
            raise SystemExit("Runtime API: connection closed")  # printed, exit code 1
        self._buf += data


def error_headers(error_type):
    """The headers of an error: its type on one line, in ASCII, and not endless."""
    return f"Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: {on_a_line(error_type)}\r\n"


def on_a_line(text):
    return "".join(c if " " <= c <= "~" else "?" for c in text[:MAX_ERROR_TYPE])
