"""Rows of a flat XML file as their attributes, each parsed alone and bounded: what StackExchange's dumps are made of.

    <?xml version="1.0" encoding="utf-8"?> <posts> <row Id="1" Body="..." /> ... </posts>

No tag holds a `<` (XML 1.0, section 2.3), so the bytes between two of them are a tag and what follows it, and a row that is
damaged or too long says nothing about its neighbours. Expat parses every row as a document of its own: no entity can be declared
for it, nothing nests, and what is held is one row. A comment is passed over up to the next `<`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.parsers import expat

from pipelines.reading import CorruptInput, Readable
from pipelines.records import short
from pipelines.schema import RejectReason

_BLOCK = 1 << 20
_BLANKS = b" \t\r\n"
_NAME = re.compile(rb"<([^\s/>]{0,40})")
_PROLOG = 1000  # bytes of the XML declaration, which is parsed with every row


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why."""

    reason: RejectReason
    detail: str


def rows(stream: Readable, root: str, element: str, limit: int) -> Iterator[dict[str, str] | BadRow]:
    """The attributes of every `element` below `root`, in order; a row of over `limit` bytes as it stands is passed over.

    CorruptInput where the stream is damaged, the file does not end with the end of its root, has another root, or declares
    anything.
    """
    prolog, end = b"", f"</{root}>".encode()
    inside = ended = False
    at = 0
    for tag, size in _tags(stream, limit):
        name, ended = _name(tag), inside and tag.rstrip(_BLANKS) == end
        if not tag:
            continue
        if name == "?xml" and size <= _PROLOG and not inside:
            prolog = tag.rstrip(_BLANKS)
        elif name.startswith("!") and not name.startswith("!--"):
            # A dump declares nothing; an entity that is declared can only be an attempt to make its text explode.
            raise CorruptInput(at, f"XML: a declaration, {name!r}")
        elif not inside and not name.startswith(("!", "?")):
            if name != root:
                raise CorruptInput(at, f"XML: the root is {name!r}, not {root!r}")
            inside = True
        elif name == element:
            yield _row(prolog, tag) if size <= limit else BadRow(RejectReason.TOO_LARGE, f"a row of over {limit} bytes")
        at += size
    if not ended:
        raise CorruptInput(at, f"XML: no end of {root!r}")


def _name(tag: bytes) -> str:
    found = _NAME.match(tag)
    return found[1].decode("utf-8", "replace") if found else ""


def _row(prolog: bytes, tag: bytes) -> dict[str, str] | BadRow:
    found: list[dict[str, str]] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: found.append(attributes)
    try:
        parser.Parse(prolog + tag.rstrip(_BLANKS))
    except expat.ExpatError as error:
        return BadRow(RejectReason.MALFORMED_RECORD, f"XML: {expat.ErrorString(error.code)}")
    except (LookupError, ValueError) as error:  # a character set that nobody knows
        return BadRow(RejectReason.MALFORMED_RECORD, short(f"XML: {error}"))
    return found[0] if found else BadRow(RejectReason.MALFORMED_RECORD, "XML: a tag that does not end")


def _tags(stream: Readable, limit: int) -> Iterator[tuple[bytes, int]]:
    """(bytes from a `<` up to the next, at most limit + 1 of them; how many there are), for every `<`.

    At the end of the bytes, or where they are damaged, only what ends with `>` is a tag; b"" stands for another rest.
    """
    held, size, last = bytearray(), 0, b""
    damage: CorruptInput | None = None
    while damage is None:
        try:
            block = stream.read(_BLOCK)
        except CorruptInput as error:
            damage, block = error, b""
        if not block:
            break
        first, *others = block.split(b"<")
        if held:
            size += len(first)
            held += first[: max(limit + 1 - len(held), 0)]
        for other in others:
            if held:
                yield bytes(held), size
            held = bytearray(b"<" + other[:limit])
            size = len(other) + 1
        last = block.rstrip(_BLANKS)[-1:] or last
    if held:
        yield bytes(held) if last == b">" else b"", size
    if damage is not None:
        raise damage
