"""A loopback stand-in for two Google services: Dataflow's jobs API and Cloud Storage's JSON API, as far as clients here ask.

It keeps what it is sent, so that a test can read back the pipeline that the real DataflowRunner staged and the job that it
asked for, and so that a whole run can be built on `gs://`. It runs no job: that workers run is not shown here.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from typing import Any

import google_crc32c

_TIME = "2026-01-01T00:00:00Z"


class Service(http.server.ThreadingHTTPServer):
    """The two services on one port of 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.objects: dict[tuple[str, str], bytes] = {}
        self.uploads: dict[str, tuple[str, str, bytearray, bool]] = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """With the name localhost: only then does the Dataflow client speak REST."""
        return f"http://localhost:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def _handle(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self._body()
        path = urllib.parse.unquote(url.path)
        with self.server.lock:
            for pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, path, re.DOTALL)
                if match:
                    answer(self, match, query, body)
                    return
        self._json(404, {"error": {"code": 404, "message": f"not served here: {path}"}})

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, code: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._raw(code, json.dumps(value).encode(), ("Content-Type", "application/json"), *headers)

    def _raw(self, code: int, data: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(code)
        for name, value in (*headers, ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    # -- Dataflow ---------------------------------------------------------------------------------------------------------

    def _jobs(self, match: re.Match[str], query: dict[str, str], body: bytes) -> None:
        if self.command == "POST":
            job = json.loads(body)
            name = f"job-{len(self.server.jobs)}"
            job.update(id=name, projectId=match[1], location=match[2], currentState="JOB_STATE_RUNNING")
            self.server.jobs[name] = job
            self._json(200, _summary(job))
        else:
            self._json(200, {"jobs": [_summary(job) for job in self.server.jobs.values()]})

    def _job(self, match: re.Match[str], query: dict[str, str], body: bytes) -> None:
        if match[2]:
            self._json(200, {})
            return
        job = self.server.jobs[match[1]]
        job["currentState"] = "JOB_STATE_DONE"
        self._json(200, _summary(job))

    # -- Cloud Storage ----------------------------------------------------------------------------------------------------

    def _bucket(self, match: re.Match[str], query: dict[str, str], body: bytes) -> None:
        self._json(200, {"kind": "storage#bucket", "name": match[1], "id": match[1], "location": "US-CENTRAL1"})

    def _list(self, match: re.Match[str], query: dict[str, str], body: bytes) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for (bucket, name), data in sorted(self.server.objects.items()):
            if bucket != match[1] or not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter, 1)[0] + delimiter)
            else:
                items.append(_metadata(bucket, name, data))
        self._json(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def _object(self, match: re.Match[str], query: dict[str, str], body: bytes) -> None:
        key = (match[1], match[2])
        data = self.server.objects.get(key)
        if data is None:
            self._json(404, {"error": {"code": 404, "message": "No such object"}})
        elif self.command == "DELETE":
            del self.server.objects[key]
            self._raw(204, b"")
        elif query.get("alt") == "media":
            self._media(data)
        else:
            self._json(200, _metadata(*key, data))

    def _media(self, data: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self._raw(200, data)
            return
        start, stop = int(wanted[1]), int(wanted[2] or len(data) - 1) + 1
        if start >= len(data):
            self._raw(416, b"")
            return
        span = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
        self._raw(206, data[start:stop], ("Content-Range", span))

    def _upload(self, match: re.Match[str], query: dict[str, str], body: bytes) -> None:
        bucket, create = match[1], query.get("ifGenerationMatch") == "0"
        if self.command == "PUT":
            self._continue_upload(query["upload_id"], body)
            return
        if query.get("uploadType") == "resumable":
            name = query.get("name") or json.loads(body or b"{}")["name"]
            number = str(len(self.server.uploads))
            self.server.uploads[number] = (bucket, name, bytearray(), create)
            location = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            self._json(200, {}, (("Location", location),))
            return
        if query.get("uploadType") == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()  # type: ignore[index]
            pieces = body.split(b"--" + boundary)
            name = json.loads(pieces[1].split(b"\r\n\r\n", 1)[1])["name"] if b"name" in pieces[1] else query["name"]
            self._store(bucket, name, pieces[2].split(b"\r\n\r\n", 1)[1][:-2], create)
            return
        self._store(bucket, query["name"], body, create)

    def _continue_upload(self, number: str, body: bytes) -> None:
        bucket, name, data, create = self.server.uploads[number]
        data += body
        if self.headers.get("Content-Range", "").endswith("/*"):
            self._raw(308, b"", ("Range", f"bytes=0-{len(data) - 1}"))
        else:
            self._store(bucket, name, bytes(data), create)

    def _store(self, bucket: str, name: str, data: bytes, create: bool) -> None:
        if create and (bucket, name) in self.server.objects:
            self._json(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        self.server.objects[bucket, name] = data
        self._json(200, _metadata(bucket, name, data))


def _summary(job: dict[str, Any]) -> dict[str, Any]:
    return {key: job[key] for key in ("id", "name", "projectId", "location", "currentState", "type") if key in job}


def _metadata(bucket: str, name: str, data: bytes) -> dict[str, Any]:
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "id": f"{bucket}/{name}/1",
        "size": str(len(data)),
        "crc32c": base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
        "md5Hash": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        "etag": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "generation": "1",
        "metageneration": "1",
        "updated": _TIME,
        "timeCreated": _TIME,
    }


_ROUTES = (
    (r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs", _Handler._jobs),
    (r"/v1b3/projects/[^/]+/locations/[^/]+/jobs/([^/]+)(/messages|/metrics)?", _Handler._job),
    (r"/storage/v1/b/([^/]+)", _Handler._bucket),
    (r"/storage/v1/b/([^/]+)/o", _Handler._list),
    (r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", _Handler._object),
    (r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o", _Handler._upload),
)
