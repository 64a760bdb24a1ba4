"""What a service is started with, and what it refuses to be started with."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pipelines.errors import UserError

TOKEN = "WINNOW_TOKEN"  # noqa: S105  (the variable's name)
STATE = ".winnow-service"  # below --runs unless --state says otherwise; no corpus can have this name
DOCUMENTS = 64  # that one request may have scored
TEXT_BYTES = 1 << 20  # of one of them, as UTF-8
EXPLAINED = 50  # documents and rejects of one name that are explained
_TOKEN_CHARACTERS = (16, 512)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all of them together, may ask for. Bytes, seconds and counts."""

    body_bytes: int = 16 << 20  # of POST /v1/score; everything else takes `small_body_bytes`
    small_body_bytes: int = 64 << 10
    head_seconds: float = 10.0  # for the head of a request to arrive whole
    body_seconds: float = 30.0  # for a body to arrive whole
    bodies: int = 16  # requests with a body at once
    scorings: int = 2  # at once; each has models and scratch memory of its own
    explanations: int = 2  # at once
    wait_seconds: float = 2.0  # for one of these to come free before 429
    idle_scorers: int = 4  # that are kept loaded
    queued_jobs: int = 16
    kept_jobs: int = 1000  # that have ended, with their logs
    job_starts: int = 3  # of one job, before it is called failed
    listeners: int = 16  # of events, at once
    disk_free_bytes: int = 1 << 30  # for /readyz


def limits(given: Sequence[str]) -> Limits:
    """The limits, with those of `given`, each `name=number`, in the place of their own. Raises UserError."""
    own: dict[str, Any] = {one.name: one.default for one in fields(Limits)}
    changed = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in own:
            raise UserError(f"--limit {text}: no limit is called {name!r}; there are {', '.join(own)}")
        try:
            changed[name] = type(own[name])(number)
        except ValueError:
            changed[name] = 0
        if not 0 < changed[name] < math.inf:
            whole = "a whole number" if isinstance(own[name], int) else "a number"
            raise UserError(f"--limit {text}: give {whole} above 0, as in {name}={own[name]:g}")
    return Limits(**changed)


@dataclass(frozen=True, slots=True)
class Settings:
    """A service. `runs` holds one run a folder; `recipes` one recipe a file, or None for the shipped ones alone."""

    runs: Path
    state: Path
    recipes: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    limits: Limits = Limits()

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone. Names other than localhost are not looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_address(settings: Settings) -> None:
    """Raises UserError for an address that others can reach without a token."""
    if not settings.loopback and settings.token is None:
        raise UserError(
            f"--host {settings.host}: others can reach this address; give a token by --token-file FILE or {TOKEN},"
            " or listen on 127.0.0.1"
        )


def read_token(file: str | None, environment: Mapping[str, str]) -> str | None:
    """The token of a file, else of the environment, else None. Raises UserError for one that cannot be used."""
    if file is None:
        given = environment.get(TOKEN)
        return None if given is None else _checked(given, TOKEN)
    try:
        with open(file, encoding="utf-8") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise UserError(f"{file}: others may read this token; chmod 600 {file}")
            return _checked(stream.read(_TOKEN_CHARACTERS[1] + 2), file)
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; write the token as plain text") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; write the token there, or leave --token-file out") from error


def _checked(given: str, where: str) -> str:
    token, (least, most) = given.strip(), _TOKEN_CHARACTERS
    if not least <= len(token) <= most or not token.isascii() or any(not " " < character < "\x7f" for character in token):
        raise UserError(f"{where}: a token is {least} to {most} visible ASCII characters; openssl rand -hex 32 makes one")
    return token


def folders(runs: str, state: str | None, recipes: str | None) -> tuple[Path, Path, Path | None]:
    """(runs, state, recipes) as absolute paths; `state` is made. Raises UserError for a folder that is not there."""
    root = _folder("--runs", runs)
    kept = root / STATE if state is None else Path(state).resolve()
    if kept.is_relative_to(root) and kept != root / STATE:
        raise UserError(f"--state {kept}: lies among the runs; give a folder outside {root}, or leave it out")
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--state {kept}: {error.strerror}; give a folder that can be written") from error
    return root, kept, None if recipes is None else _folder("--recipes", recipes)


def _folder(option: str, given: str) -> Path:
    path = Path(given)
    if not path.is_dir():
        raise UserError(f"{option} {given}: no such folder; give one on a local disk")
    return path.resolve()
