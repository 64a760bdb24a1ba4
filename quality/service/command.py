"""The command `winnow serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.errors import UserError
from quality.service.settings import Settings, check_address, folders, limits, read_token

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")
_CONNECTIONS = 256
_STOP_SECONDS = 10  # for answers that are under way, such as streams of events


def serve(
    runs: Annotated[str, typer.Option(metavar="DIR", help="A folder of run directories; each is a corpus by its folder's name.")],
    recipes: Annotated[
        str | None, typer.Option(metavar="DIR", help="Recipes that may be built besides the shipped ones.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="One that others can reach needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Holds the token that writes need; else WINNOW_TOKEN, else none.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="DIR", help="Jobs and their logs; default: .winnow-service below --runs.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="Another limit, such as scorings=8; may be given several times.")
    ] = None,
) -> None:
    """Serve corpora on HTTP: reports, why a document was dropped, scores of texts, builds and comparisons; pages and JSON."""
    from importlib.util import find_spec

    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UserError(f"{missing[0]} is not installed; pip install 'winnow[service]'")
    root, kept, allowed = folders(runs, state, recipes)
    token = read_token(token_file, os.environ)
    host = host.strip("[]")
    settings = Settings(root, kept, allowed, host, port, token, limits(limit or ()))
    check_address(settings)
    from quality.service.app import create_app

    with _listening(host, port) as listener:
        app = create_app(settings)
        app.state.service.runner.reserve()  # here, so that what it is refused for is one line
        print(f"winnow serves {runs} at {_url(listener)}", flush=True)
        _log_to_stderr()
        threading.Thread(target=app.state.service.scorers.warm, name="warm", daemon=True).start()
        _run(app, listener)


def _listening(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError where the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except OSError as error:
        told = str(error.strerror or error).partition(" (")[0]
        raise UserError(f"{host}:{port}: {told}; give another --host or --port") from error


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _log_to_stderr() -> None:
    """One line a request on standard error: time, method, route, status, duration. Nothing of what was sent is in it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("winnow.service")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _run(app: FastAPI, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM; a running job then goes back to the queue."""
    import uvicorn

    from quality.service.connections import protocol

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.service.runner.end()  # at once: what signals a whole group has ended the job's process in this moment
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await asyncio.to_thread(app.state.service.runner.stop)  # first: streams of events end with it
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http=protocol(app.state.service.settings.limits.head_seconds),
        log_level="warning",
        access_log=False,  # it would hold queries: names of documents
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    try:
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # the server has stopped in good order, and passes on what stopped it
        return
