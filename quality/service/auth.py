"""Who may ask for what.

    reads     open on a loopback address; on any other everything but /healthz needs the token, as a bearer or, for a browser,
              as the password of HTTP Basic (any name)
    writes    where there is a token, `Authorization: Bearer TOKEN`; nothing that a browser sends by itself is enough
    browsers  a write that a page of another site sends is refused, token or not: `Sec-Fetch-Site` says so, or, from a browser
              without it, `Origin`; on loopback a `Host` that is no name of the loopback is refused, so that a name which is bound
              to 127.0.0.1 later (DNS rebinding) reads nothing
"""

from __future__ import annotations

import base64
import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.datastructures import Headers

from quality.service.problems import Problem
from quality.service.settings import Settings, is_loopback

OPEN = "/healthz"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})
_BEARER = HTTPBearer(auto_error=False, description="The token that `winnow serve` was started with.")


def require_write(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
) -> None:
    """A dependency of every route that writes. Raises Problem 401."""
    token = request.app.state.service.settings.token
    if token is not None and not _is_bearer(request.headers, token):
        raise Problem(401, "a write needs Authorization: Bearer TOKEN", headers={"WWW-Authenticate": 'Bearer realm="winnow"'})


def check(settings: Settings, method: str, path: str, headers: Headers) -> None:
    """What every request must pass before a route sees it. Raises Problem 400, 401 or 403."""
    host = headers.get("host", "")
    if settings.loopback and not is_loopback(_name(host)):
        raise Problem(403, "the Host header is no name of this address; ask for 127.0.0.1 or localhost")
    if method not in _SAFE:
        _check_origin(headers, host)
    if settings.loopback or path == OPEN or settings.token is None:
        return
    if not _is_bearer(headers, settings.token) and not (method in _SAFE and _is_basic(headers, settings.token)):
        kinds = "Bearer, Basic" if method in _SAFE else "Bearer"
        challenge = ", ".join(f'{kind} realm="winnow"' for kind in kinds.split(", "))
        raise Problem(401, "this address needs Authorization: Bearer TOKEN", headers={"WWW-Authenticate": challenge})


def _check_origin(headers: Headers, host: str) -> None:
    """Refuses what a page of another site made a browser send. Where `Sec-Fetch-Site` is there it decides: behind a proxy the
    page's `Origin` need not be the `Host` that is asked for."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_own = site in _OWN_SITE if site is not None else origin is None or origin.partition("://")[2].lower() == host.lower()
    if not is_own:
        raise Problem(403, "a page of another site may not ask for this; use the service's own pages, or no browser")


def _name(host: str) -> str:
    """The name of `name`, `name:port` or `[address]:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_bearer(headers: Headers, token: str) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and _same(given.strip(), token)


def _is_basic(headers: Headers, token: str) -> bool:
    """For the pages: what a browser asks for and sends by itself. Good for reading alone."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        _, _, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except ValueError:  # no base64, or no UTF-8
        return False
    return _same(password, token)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())
