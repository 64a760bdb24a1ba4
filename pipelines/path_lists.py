"""Path lists: `paths: ["@warc.paths.gz"]` names a text file that names the inputs, as Common Crawl publishes them.

UTF-8, plain or compressed, one input a line; blank lines and lines that begin with # are passed over. An entry is taken as it
stands, wildcards are none. A relative one lies below the source's `root`, or beside the list where the source has none; another
one, a URL or an absolute path, has to lie below the root. Only what a list says counts, not its name, order or place: an input
that is listed twice is one input.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pipelines.errors import UserError
from pipelines.given_lines import decoded, given_lines

MARK = "@"
_LINE_BYTES = 1 << 16
_SHOWN = 60  # characters of a line that an error shows


def entries(url: str, root: str | None) -> Iterator[tuple[int, str]]:
    """(number of its line, path or URL) of every input that the list at `url` names. Its faults are UserErrors."""
    folder, found = root or url.rpartition("/")[0], False
    for number, line in given_lines(url, _LINE_BYTES, "a path list has one path a line", "fetch the list again"):
        entry = _entry(line, number, url)
        if entry:
            found = True
            yield number, entry if is_absolute(entry) else posixpath.join(folder, entry)
    if not found:
        raise UserError(f"{url}: names no input; a path list has one path a line")


def is_absolute(path: str) -> bool:
    """Whether a path starts from nowhere else: a URL, or one with a slash in front."""
    return "://" in path or path.startswith("/")


def _entry(line: bytes, number: int, url: str) -> str:
    """The entry of a line, "" for a blank one or a comment."""
    text = decoded(line, number, url, "mend the list")
    if text.startswith("#"):
        return ""
    if ".." in text.split("/") or text.endswith("/"):
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise UserError(f"{url}: line {number}: {shown!r} is no path of a file; leave out .. and folders")
    return text
