"""A web server on this machine for tests: a folder over HTTP, with ranges and ETags or without, and with faults on order."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """`files` by path; `faults`: (path, method) -> what becomes of the next requests for it, first one first.

    A fault is a status, or "cut": half of the bytes come and the connection ends.
    """

    def __init__(self, ranges=True, etags=True):
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.faults: dict[tuple[str, str], list[int | str]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sent = 0
        self.ranges, self.etags = ranges, etags
        self.base = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer("HEAD")

    def do_GET(self):
        self._answer("GET")

    def _answer(self, method):
        web: Web = self.server.web
        path = self.path
        web.asked[path, method] += 1
        fault = next(iter(web.faults.get((path, method), [])), None)
        if fault is not None:
            web.faults[path, method].pop(0)
        if isinstance(fault, int) or path not in web.files:
            self.send_response(fault or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = web.files[path]
        body, status = content, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and web.ranges and method == "GET":
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
            body, status = content[start:stop], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in web.headers.items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        if web.etags:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if method == "GET":
            if fault == "cut":
                body = body[: len(body) // 2]
                self.close_connection = True
            web.sent += len(body)
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away while it is sent something is no fault."""


@contextmanager
def serving(**options):
    web = Web(**options)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.web = web
        web.base = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
