"""Object stores on this machine for tests: real servers of S3 (moto) and of Google Cloud Storage (gcp-storage-emulator) on loopback
sockets, spoken to by the libraries that winnow uses, s3fs and gcsfs.

A gate stands before each server: a web server that passes every request on, counts it, and does to it what a test ordered. A fault
is a status; "cut": half of the answer's bytes come and the connection ends; "lost": the server does what was asked, and its answer
does not come; "flip": one bit of what is sent arrives as another one. Credentials: moto holds a signed request's key against those
that exist where a test asks for it; the emulator knows no users, so there a refusal is the gate's, in the store's own words. Nor
does it know the condition that an object is only to be created: the gate holds it in its place.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import threading
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import fsspec
import pytest

BUCKET = "corpus"


@dataclass
class Gate:
    """`faults`: (method, end of the path) -> what becomes of the next such requests, first one first."""

    server: tuple[str, int]
    address: str = ""
    faults: dict[tuple[str, str], list[int | str]] = field(default_factory=dict)
    asked: Counter = field(default_factory=Counter)  # (method, path without query) -> requests
    headers: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)  # of the last such request
    sent: int = 0  # bytes of answers
    created: threading.Lock = field(default_factory=threading.Lock)

    def stands(self, path: str, body: bytes) -> bool:
        """Whether an object of Google's that is only to be created, as the body of its upload names it, is already there."""
        name = re.search(rb'"name": "([^"]*)"', body)
        connection = http.client.HTTPConnection(*self.server)
        try:
            connection.request("GET", f"{path.removeprefix('/upload')}/{quote(name[1].decode(), safe='')}")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def fault(self, method: str, path: str) -> int | str | None:
        for (of, end), faults in self.faults.items():
            if of == method and path.endswith(end) and faults:
                return faults.pop(0)
        return None

    def times(self, method: str, end: str) -> int:
        return sum(count for (of, path), count in self.asked.items() if of == method and path.endswith(end))


def _refusal(status: int) -> bytes:
    """What Google's store says; S3's libraries take an error by its status where the answer is none of its XML."""
    return json.dumps({"error": {"code": status, "message": f"refused with {status}"}}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _pass_on(self):
        gate: Gate = self.server.gate
        path = self.path.partition("?")[0].replace("%2F", "/")
        gate.asked[self.command, path] += 1
        gate.headers[self.command, path] = dict(self.headers)
        body = self._body()
        fault = gate.fault(self.command, path)
        only_new = "ifGenerationMatch=0" in self.path
        with gate.created if only_new else contextlib.nullcontext():
            self._answered(gate, body, 412 if only_new and gate.stands(path, body) else fault)

    def _answered(self, gate: Gate, body: bytes, fault: int | str | None):
        if isinstance(fault, int):
            said = _refusal(fault)
            self.send_response(fault)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said if self.command != "HEAD" else b"")
            return
        if fault == "flip":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "expect")}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection(*gate.server)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if fault == "lost":
            self.close_connection = True
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if fault == "cut":
            content = content[: len(content) // 2]
            self.close_connection = True
        gate.sent += len(content)
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _pass_on

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away while it is sent something is no fault."""


@dataclass
class ObjectStore:
    """A server, what its clients need to know, and a bucket that is there."""

    kind: str  # the scheme of its URLs
    gate: Gate
    environment: dict[str, str]  # of a process that is to use it

    def url(self, path: str) -> str:
        return f"{self.kind}://{BUCKET}/{path}"

    def filesystem(self) -> Any:
        return fsspec.core.url_to_fs(self.url(""), use_listings_cache=False)[0]

    def put(self, path: str, content: bytes) -> str:
        self.filesystem().pipe_file(f"{BUCKET}/{path}", content)
        return self.url(path)

    def content(self, folder: str) -> dict[str, bytes]:
        """Every object below a folder, by its name below it."""
        filesystem, base = self.filesystem(), f"{BUCKET}/{folder}/"
        return {name.removeprefix(base): filesystem.cat_file(name) for name in filesystem.find(base)}

    @contextlib.contextmanager
    def only_known_users(self):
        """Holds every request's key against those that exist. Of S3 only."""
        self._unchecked_requests(b"0")
        try:
            yield
        finally:
            self._unchecked_requests(b"inf")

    def _unchecked_requests(self, count: bytes) -> None:
        _told(self.gate.server, "reset-auth", count)


def _told(moto: tuple[str, int], what: str, body: bytes) -> None:
    """An order to moto itself."""
    address = f"http://{moto[0]}:{moto[1]}/moto-api/{what}"
    urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "text/plain"}, method="POST")).close()


def forget_clients() -> None:
    """What fsspec made of earlier settings."""
    for kind in ("s3", "gs"):
        with contextlib.suppress(ImportError):
            fsspec.get_filesystem_class(kind).clear_instance_cache()


@contextlib.contextmanager
def _gated(server: tuple[str, int]):
    gate = Gate(server)
    with _Server(("127.0.0.1", 0), _Handler) as front:
        front.gate = gate
        gate.address = f"http://127.0.0.1:{front.server_address[1]}"
        thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield gate
        finally:
            front.shutdown()
            thread.join()


@contextlib.contextmanager
def _known(store: ObjectStore, settings: dict[str, Any]):
    """The settings of a store in this process, and its bucket made."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setitem(fsspec.config.conf, store.kind, settings)  # fsspec read its part of the environment when it was imported
        forget_clients()
        store.filesystem().mkdir(BUCKET)
        yield store
        forget_clients()


@contextlib.contextmanager
def s3():
    """A server of S3."""
    pytest.importorskip("s3fs", reason="no s3fs: install winnow[s3]")
    pytest.importorskip("moto.server", reason="no moto: install moto[s3,server]")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _told(server.get_host_and_port(), "reset", b"")  # every server of one process has the same buckets, those of an earlier one too
    try:
        with _gated(server.get_host_and_port()) as gate:
            environment = {
                "AWS_ENDPOINT_URL": gate.address, "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
            }  # fmt: skip
            with _known(ObjectStore("s3", gate, environment), {}) as store:
                yield store
    finally:
        server.stop()


@contextlib.contextmanager
def gs():
    """A server of Google Cloud Storage."""
    pytest.importorskip("gcsfs", reason="no gcsfs: install winnow[dataflow]")
    pytest.importorskip("gcp_storage_emulator", reason="no gcp-storage-emulator")
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        with _gated(server._api._httpd.server_address[:2]) as gate:
            environment = {
                "STORAGE_EMULATOR_HOST": gate.address, "FSSPEC_GS_TOKEN": "anon", "NO_GCE_CHECK": "true",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask for the bucket's layout by gRPC
            }  # fmt: skip
            import gcsfs.core

            fsspec.register_implementation("gs", gcsfs.core.GCSFileSystem, clobber=True)  # what that makes of it, had it been read
            with _known(ObjectStore("gs", gate, environment), {"token": "anon"}) as store:
                yield store
    finally:
        server.stop()


SERVERS = {"s3": s3, "gs": gs}
