r"""arXiv's source bundles: a record is a member of the tar, which is a submission.

`arXiv_src_YYMM_NNN.tar`, as arXiv publishes it in bulk, holds `YYMM/<id>.gz`, a gzip of one .tex file or of a tar of files
(`latex_bundle`), and `YYMM/<id>.pdf`. The text is LaTeX: from the first section on, without comments, bibliography and user macros
(`latex`, `latex_macros`), as in LLaMA (Touvron et al. 2023, section 2.1). Nothing is executed, nothing is written.

| what stands there                                                           | what becomes of it                        |
|-----------------------------------------------------------------------------|-------------------------------------------|
| a .gz of LaTeX                                                              | a document                                |
| a .pdf; a .gz of PostScript, plain TeX or nothing but styles; any other file | reject `no_latex`                        |
| LaTeX with nothing behind its front matter                                  | `missing_text`                            |
| a .gz that is damaged or cut off                                            | `corrupt_container`; the next one is read |
| over the limit, before or after unpacking or expansion                      | `too_large`, never held                   |
| a link, a device, a path that leads out of the tar                          | `unsafe_path`                             |
| damage in the tar                                                           | one `corrupt_container` for the rest      |

source_id is the arXiv id in the member's name and url its abstract page, where the name is one for sure; title the paper's, where
it is simple. arXiv's bulk files state neither date nor licence.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from pipelines.reading import CorruptInput, open_input
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions
from pipelines.sources.archives import read_members
from pipelines.sources.latex import decode, paper
from pipelines.sources.latex_bundle import Bundle, TooLarge, unpack, whole_source
from pipelines.sources.latex_macros import expand
from pipelines.sources.member_count import count_members

_NEW_ID = re.compile(r"(\d{2}(?:0[1-9]|1[0-2])\.\d{4,5})(?:v\d{1,2})?")  # since April 2007
_OLD_ID = re.compile(r"([a-z]+(?:-[a-z]+)?)(\d{2}(?:0[1-9]|1[0-2])\d{3})(?:v\d{1,2})?")


def read(source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None) -> Iterator[Record | Reject]:
    """The submissions of one tar."""
    for member in read_members(source_input, limits):
        if isinstance(member, Reject):
            yield member
        else:
            yield submission(f"{source_input.path}!{member.name}#{member.number}", member.name, member.content, limits)


def submission(locator: str, name: str, content: bytes, limits: Limits) -> Record | Reject:
    """One submission, by the member's name and content."""
    stem, ending = posixpath.splitext(posixpath.basename(name))
    if ending.lower() != ".gz":
        return Reject(locator, RejectReason.NO_LATEX, f"a {short(ending) or 'file without an ending'}, not a .gz")
    try:
        bundle = Bundle({path: decode(found) for path, found in unpack(content, limits).items()})
    except CorruptInput as error:
        return Reject(locator, RejectReason.CORRUPT_CONTAINER, str(error))
    except TooLarge as error:
        return Reject(locator, RejectReason.TOO_LARGE, str(error))
    main = bundle.main()
    if main is None:
        return Reject(locator, RejectReason.NO_LATEX, r"no file with a \begin{document}")
    source = whole_source(bundle, main, limits.record_bytes)
    found = paper(expand(source.text))
    if found is None or not found.text:
        return Reject(locator, RejectReason.MISSING_TEXT, "nothing behind the front matter")
    if len(found.text.encode()) > limits.record_bytes:
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes when expanded")
    own = arxiv_id(stem)
    return Record(locator, found.text, own, own and f"https://arxiv.org/abs/{own}", found.title)


def arxiv_id(stem: str) -> str | None:
    """The arXiv id that a file name states: 2301.00001, or math/0309136 for math0309136; None where it is none for sure."""
    if new := _NEW_ID.fullmatch(stem):
        return new[1]
    old = _OLD_ID.fullmatch(stem)
    return f"{old[1]}/{old[2]}" if old else None


def count(source_input: Input, options: SourceOptions) -> int:
    """Members of the tar that are no folders, by another reader."""
    with open_input(source_input.url) as raw:
        return count_members(raw)
