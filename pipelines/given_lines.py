"""Files that a user names in a recipe and that are read by the line: lists of words, hosts and paths, and evaluation sets.

They are the user's own words, not records of a source: a fault in one is an error of one line before anything is built, never a
reject.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.errors import UserError
from pipelines.reading import CorruptInput, OversizedLine, decompressed, lines, open_input

_BOM = b"\xef\xbb\xbf"


def given_lines(url: str, limit: int, form: str, mend: str) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without a byte-order mark) of a file, plain or compressed.

    form: what a line should be, told where one is over `limit` bytes; mend: what to do, told where the file is damaged. Raises
    UserError then, and where there is no such file.
    """
    with open_input(url) as raw:
        try:
            for number, line in enumerate(lines(decompressed(raw), limit), 1):
                if isinstance(line, OversizedLine):
                    raise UserError(f"{url}: line {number}: over {limit} bytes; {form}")
                yield number, line.removeprefix(_BOM) if number == 1 else line
        except CorruptInput as error:
            raise UserError(f"{url}: cannot be read to its end ({error}); {mend}") from error


def decoded(line: bytes, number: int, url: str, mend: str) -> str:
    """The text of a line without blanks at its ends. Raises UserError where it is not UTF-8."""
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: line {number}: not UTF-8 ({error.reason}); {mend}") from error
