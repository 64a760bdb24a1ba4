"""A job as it goes, by server-sent events (HTML standard, 9.2): the same object as GET /v1/jobs/{id}, whenever it changes.

    event: state      its state is another one, or its end was asked for
    event: progress   its stage or progress is another one
    event: end        it has ended, and so does the stream

A comment now and then keeps the connection open and tells when nobody listens any more. A stream lives ten minutes at most: a
browser asks again by itself. Only so many are open at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

POLL, HEARTBEAT, LIFE = 0.5, 10.0, 600.0  # seconds
_HEARD = ("state", "stopping"), ("stage", "progress", "detail")


class Listeners:
    """How many streams may be open at once, and are. Of the event loop alone."""

    def __init__(self, limit: int) -> None:
        self.limit, self.open = limit, 0

    def enter(self) -> bool:
        """Whether there was room for one more, which must `leave`."""
        if self.open >= self.limit:
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        self.open -= 1


class EventStream(StreamingResponse):
    """A stream that gives its place back however it ends, also where its client is gone before it begins."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], listeners: Listeners) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listeners.leave()


async def events(request: Request, look: Callable[[], dict[str, Any]], is_over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The events of a job. look: the job as it is now, which may read files; is_over: whether the service ends."""
    yield b"retry: 2000\n\n"
    began = spoke = time.monotonic()
    before: dict[str, Any] = {}
    while not is_over() and time.monotonic() - began < LIFE and not await request.is_disconnected():
        now = await run_in_threadpool(look)
        for name, keys in zip(("state", "progress"), _HEARD, strict=True):
            if any(key not in before or before[key] != now[key] for key in keys):
                yield _event(name, now)
                spoke = time.monotonic()
        if now["ended"] is not None:
            yield _event("end", now)
            return
        before = now
        if time.monotonic() - spoke >= HEARTBEAT:
            yield b": still here\n\n"
            spoke = time.monotonic()
        await asyncio.sleep(POLL)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
