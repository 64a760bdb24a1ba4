"""Around every request: who may ask, how much it may send, what every answer carries, and what happens where a route fails.

A body is read whole, within a time and a size, before a route runs; so many requests with a body at once, and no more, hold
memory. All that is refused here is a problem as anywhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quality.service import auth, problems
from quality.service.metrics import Metrics, known_method
from quality.service.problems import Problem

if TYPE_CHECKING:
    from quality.service.settings import Settings

_LOG = logging.getLogger("winnow.service")
_Found = TypeVar("_Found")
_LARGE = frozenset({"/v1/score", "/score"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Slots:
    """So many pieces of work at once, each in a thread. Who waits longer than `wait_seconds` for one gets a Problem 429; who waits
    has no thread, of which all other requests need one."""

    def __init__(self, count: int, wait_seconds: float, what: str) -> None:
        self._free = asyncio.Semaphore(count)
        self._count, self._wait, self._what = count, wait_seconds, what

    async def run(self, work: Callable[[], _Found]) -> _Found:
        """What `work` returns or raises."""
        try:
            async with asyncio.timeout(self._wait):
                await self._free.acquire()
        except TimeoutError:
            raise busy(f"{self._count} {self._what} at once, and all are at work") from None
        try:
            return await run_in_threadpool(work)
        finally:
            self._free.release()


def busy(detail: str, seconds: int = 2) -> Problem:
    """A Problem 429 that says when to ask again."""
    return Problem(429, f"{detail}; ask again in {seconds} s", headers={"Retry-After": str(seconds)})


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, method = time.perf_counter(), 0, known_method(scope["method"])
        is_head, is_over = method == "HEAD", False
        if is_head:  # what GET answers, without the body
            scope = {**scope, "method": "GET"}

        async def sending(message: Message) -> None:
            nonlocal status, is_over
            if is_over:  # of a stream that hears only now that nothing more is wanted
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            elif is_head:
                message, is_over = {"type": "http.response.body"}, True
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        except Exception as error:
            problems.log_failure(f"{method} {_route(scope)}", error)
            if status == 0:
                await problems.respond(Request(scope), problems.from_error(error))(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request(method, _route(scope), status, seconds)
            _LOG.info("%s %s %d %.0f ms", method, _route(scope), status, seconds * 1e3)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, holding = Headers(scope=scope), False
        try:
            auth.check(self._settings, scope["method"], scope["path"], headers)
            if "content-length" in headers or "transfer-encoding" in headers:
                if self._bodies >= self._settings.limits.bodies:
                    raise busy("too many requests with a body at once")
                self._bodies, holding = self._bodies + 1, True
                receive = await self._held(scope["path"], headers, receive)
            await self._app(scope, receive, send)
        except Problem as problem:
            await problems.respond(Request(scope), problem)(scope, receive, send)
        finally:
            self._bodies -= holding

    async def _held(self, path: str, headers: Headers, receive: Receive) -> Receive:
        """A `receive` that gives the whole body at once. Raises Problem 408 or 413."""
        limits = self._settings.limits
        limit = limits.body_bytes if path in _LARGE else limits.small_body_bytes
        stated = headers.get("content-length", "")
        if stated.isdigit() and (len(stated) > 18 or int(stated) > limit):
            raise _too_large(limit)
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":  # the client is gone; nobody reads what is answered
                        raise Problem(400, "the body ended early", headers={"Connection": "close"})
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            seconds = f"{limits.body_seconds:g} s"
            raise Problem(408, f"the body did not arrive within {seconds}", headers={"Connection": "close"}) from None
        held: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def replay() -> Message:
            nonlocal held
            if held is None:
                return await receive()
            message, held = held, None
            return message

        return replay


def _too_large(limit: int) -> Problem:
    return Problem(413, f"a body of more than {limit:,} bytes; send less at a time", headers={"Connection": "close"})


def _route(scope: Scope) -> str:
    """The template of the route that took the request, such as /v1/corpora/{id}: bounded, and nothing of what was sent."""
    return getattr(scope.get("route"), "path", "unmatched")
