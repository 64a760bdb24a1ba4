"""Connections that send nothing, or half of something, against a real server: they are closed, and what is at work is not."""

import asyncio
import socket

import pytest
import uvicorn

from quality.service.connections import protocol

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
SECONDS = 0.3


async def _app(scope, receive, send):
    """Answers after longer than a head may take, without a look at the body."""
    await asyncio.sleep(2 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def _serving(play):
    """What `play` returns of the port of a server that is stopped after it; it keeps an idle connection for ever."""

    async def run():
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            _app, http=protocol(SECONDS), lifespan="off", log_level="critical", timeout_keep_alive=1000, limit_concurrency=4
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            return await asyncio.wait_for(play(listener.getsockname()[1]), 60)
        finally:
            server.should_exit = True
            await task

    return asyncio.run(run())


async def _answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split()[1], await reader.readexactly(2)


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_connection_without_a_whole_head_is_closed(sent):
    async def play(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        found = await reader.read()
        writer.close()
        return found

    assert _serving(play) == b""


@pytest.mark.parametrize(("first", "then"), [(REQUEST, b"GET /"), (POST, b"half")])
def test_so_is_one_that_was_answered_and_then_sends_half_of_something(first, then):
    """The head of a next request, or the rest of a body that nobody waits for."""

    async def play(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        answer = await _answer(reader)
        writer.write(then)
        found = await reader.read()
        writer.close()
        return answer, found

    assert _serving(play) == ((b"200", b"ok"), b"")


def test_whoever_comes_after_many_silent_ones_is_answered():
    """More than the server takes at once; and an answer takes longer than a head may."""

    async def play(port):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        for reader, writer in silent:
            await reader.read()
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        answer = await _answer(reader)
        writer.close()
        return answer

    assert _serving(play) == (b"200", b"ok")
