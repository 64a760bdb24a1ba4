"""Which licence code stands under: SPDX ids from licence texts, notices, package metadata and SPDX expressions.

Touvron et al. 2023 (LLaMA), section 2.1, keep projects "distributed under the Apache, BSD and MIT licenses". A licence is
told by sentences that are its own, compared as words: case, punctuation and line breaks do not count. Two rules err on the side
of leaving code out:

* A licence file holds one or more licences whole; more than half again as many words as these have, and 150, are further terms
  that nobody has read: then the licence cannot be told.
* Several licences in one text, or several texts in one folder, all hold (`AND`), since whether they are a choice is only prose.
  An SPDX expression says it: of an `OR`, one permitted side is enough. An exception (`WITH`) only adds permissions.

`LicenseRef-BSD` and `LicenseRef-Apache` are licences of that family whose version the metadata leaves open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PERMITTED = frozenset(
    """Apache-2.0 LicenseRef-Apache MIT MIT-0 0BSD BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-2-Clause-Views
    BSD-3-Clause LicenseRef-BSD""".split()
)
_SPARE_WORDS, _SPARE_SHARE = 150, 1.5
_EXPRESSION_LENGTH = 500


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    """Sentences (as words) that all stand in a licence, others that do not, and how many words the whole text has."""

    id: str
    words: int
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()


_MIT = "permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation"
_KEPT = "this permission notice shall be included in all copies or substantial portions of the software"
_GOOD = "the software shall be used for good not evil"
_BSD = "redistribution and use in source and binary forms with or without modification are permitted"
_SOURCE, _BINARY = "redistributions of source code must retain the", "redistributions in binary form must reproduce the"
_ENDORSE, _ADVERTISE = "to endorse or promote products derived from this software without", "all advertising materials mentioning"
_ISC = "distribute this software for any purpose with or without fee is hereby granted"
_ISC_KEPT = "provided that the above copyright notice and this permission notice appear in all copies"
_GNU, _V2, _V21, _V3 = "gnu {}general public license", "version 2 june 1991", "version 2 1 february 1999", "version 3 29 june 2007"
_LESSER, _AFFERO, _LIBRARY = (_GNU.format(f"{kind} ") for kind in ("lesser", "affero", "library"))
_PLAIN = _GNU.format("")
_TITLES = (f"{_LESSER} {_V21}", f"{_LESSER} {_V3}", f"{_AFFERO} version 3 19 november 2007")

# The whole texts.
_TEXTS = (
    _Fingerprint("MIT", 170, (_MIT, _KEPT), (_GOOD, "shall not be used in advertising")),
    _Fingerprint("MIT-0", 145, (_MIT, "to permit persons to whom the software is furnished to do so"), (_KEPT,)),
    _Fingerprint("X11", 220, (_MIT, _KEPT, "shall not be used in advertising"), (_GOOD,)),
    _Fingerprint("JSON", 190, (_MIT, _GOOD)),
    _Fingerprint("BSD-1-Clause", 165, (_BSD, _SOURCE), (_BINARY, _ENDORSE, _ADVERTISE)),
    _Fingerprint("BSD-2-Clause", 195, (_BSD, _SOURCE, _BINARY), (_ENDORSE, _ADVERTISE)),
    _Fingerprint("BSD-3-Clause", 225, (_BSD, _SOURCE, _BINARY, _ENDORSE), (_ADVERTISE,)),
    _Fingerprint("BSD-4-Clause", 260, (_BSD, _SOURCE, _BINARY, _ENDORSE, _ADVERTISE)),
    _Fingerprint("ISC", 130, (_ISC, _ISC_KEPT)),
    _Fingerprint("0BSD", 105, (_ISC, "the software is provided as is"), (_ISC_KEPT,)),
    _Fingerprint("Apache-2.0", 1680, ("apache license version 2 0 january 2004", "9 accepting warranty or additional liability")),
    _Fingerprint("GPL-2.0", 3000, (f"{_PLAIN} {_V2}",), (_LIBRARY + " " + _V2,)),
    _Fingerprint("GPL-3.0", 5700, (f"{_PLAIN} {_V3}",)),
    _Fingerprint("LGPL-2.0", 4400, (f"{_LIBRARY} {_V2}",)),
    _Fingerprint("LGPL-2.1", 4500, (_TITLES[0],)),
    _Fingerprint("LGPL-3.0", 1200, (_TITLES[1],)),
    _Fingerprint("AGPL-3.0", 5700, (_TITLES[2],)),
    _Fingerprint("MPL-2.0", 2700, ("mozilla public license version 2 0 1 definitions",)),
    _Fingerprint("EPL-2.0", 2300, ("eclipse public license v 2 0 the accompanying program",)),
    _Fingerprint("EPL-1.0", 1800, ("eclipse public license v 1 0 the accompanying program",)),
    _Fingerprint("Unlicense", 220, ("this is free and unencumbered software released into the public domain",)),
    _Fingerprint("CC0-1.0", 1100, ("creative commons legal code cc0 1 0 universal",)),
    _Fingerprint("BSL-1.0", 230, ("boost software license version 1 0 august 17th 2003",)),
    _Fingerprint("Zlib", 150, ("altered source versions must be plainly marked as such", "this notice may not be removed or")),
    _Fingerprint("PSF-2.0", 2600, ("python software foundation license version 2",)),
    _Fingerprint("WTFPL", 120, ("do what the fuck you want to public license",)),
    _Fingerprint("LicenseRef-Commons-Clause", 200, ("commons clause license condition",)),
)
# What stands at the head of a file instead of the text; each pattern is bounded, so it is linear.
_NOTICES = (
    (
        "Apache-2.0",
        re.compile(r"(?:licensed|file to you) under the apache license version 2 0|apache license v2 0 with llvm exceptions"),
    ),
    ("AGPL-3.0", re.compile(r"under the terms of (?:version \d of )?the gnu affero general public license")),
    ("LGPL-2.1", re.compile(r"under the terms of (?:version \d of )?the gnu (?:lesser|library) general public license")),
    ("GPL-2.0", re.compile(r"under the terms of (?:version \d of )?the gnu general public license")),
    ("MPL-2.0", re.compile(r"subject to the terms of the mozilla public license v 2 0")),
    ("MIT", re.compile(r"(?:licensed|released|distributed) under (?:the )?(?:terms of the )?mit license")),
    ("BSD-3-Clause", re.compile(r"(?:licensed|released|distributed) under (?:the )?(?:bsd 3 clause|3 clause bsd|new bsd) license")),
    ("BSD-2-Clause", re.compile(r"(?:licensed|released|distributed) under (?:the )?(?:bsd 2 clause|2 clause bsd) license")),
)
_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n]{1,500})")
_WORDS = re.compile(r"[a-z0-9]+")
# One line of free text, as people write it into metadata and tables.
_ALIASES = {
    "mit": "MIT", "mit license": "MIT", "the mit license": "MIT", "the mit license mit": "MIT", "expat": "MIT",
    "apache 2": "Apache-2.0", "apache 2 0": "Apache-2.0", "apache license 2 0": "Apache-2.0", "apache2": "Apache-2.0",
    "apache license version 2 0": "Apache-2.0", "apache 2 0 license": "Apache-2.0", "apache software license 2 0": "Apache-2.0",
    "apache": "LicenseRef-Apache", "apache license": "LicenseRef-Apache", "apache software license": "LicenseRef-Apache",
    "bsd": "LicenseRef-BSD", "bsd license": "LicenseRef-BSD", "new bsd": "BSD-3-Clause", "new bsd license": "BSD-3-Clause",
    "bsd 3 clause license": "BSD-3-Clause", "3 clause bsd license": "BSD-3-Clause", "bsd 2 clause license": "BSD-2-Clause",
    "bsd 3": "BSD-3-Clause", "bsd 2": "BSD-2-Clause", "isc license": "ISC", "isc license iscl": "ISC",
    "python software foundation license": "PSF-2.0", "mozilla public license 2 0 mpl 2 0": "MPL-2.0", "gpl": "LicenseRef-GPL",
    "gnu general public license v3 gplv3": "GPL-3.0", "gnu general public license v2 gplv2": "GPL-2.0", "lgpl": "LicenseRef-LGPL",
    "gnu lesser general public license v2 or later lgplv2": "LGPL-2.1", "the unlicense unlicense": "Unlicense",
}  # fmt: skip
_OTHER_IDS = """AGPL-3.0-only AGPL-3.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later LGPL-2.1-only
    LGPL-2.1-or-later LGPL-2.1+ LGPL-3.0-only LGPL-3.0-or-later MPL-1.1 Artistic-2.0 MIT-CMU CC-BY-4.0 CC-BY-SA-4.0 EUPL-1.2
    Apache-1.1 Python-2.0 NCSA Ruby OFL-1.1""".split()
_IDS = {name.lower(): name for name in (*PERMITTED, *(known.id for known in _TEXTS), *_OTHER_IDS)}
_TOKEN = re.compile(r"[()]|[^\s()]+")


def license_of_text(text: str) -> str | None:
    """The SPDX expression of a licence file's whole text, or None where it cannot be told."""
    words = _WORDS.findall(text.lower())
    joined = " ".join(words)
    found = _found(joined)
    if not found:
        return _noticed(joined) if len(words) <= _SPARE_WORDS else None
    spare = sum(known.words for known in found) * _SPARE_SHARE + _SPARE_WORDS
    return None if len(words) > spare else " AND ".join(sorted(known.id for known in found))


def license_of_header(header: str) -> str | None:
    """What the comment at the head of a source file states: an SPDX tag, a notice, or a whole text; None for nothing."""
    if tag := _TAG.search(header):
        stated = tag[1].split("*/")[0].split("-->")[0].strip(" \t\r*/#;-\"'")
        return license_of_expression(stated) or f"LicenseRef-{'-'.join(_WORDS.findall(stated.lower()))[:60]}"
    joined = " ".join(_WORDS.findall(header.lower()))
    return " AND ".join(sorted(known.id for known in _found(joined))) or _noticed(joined)


def license_of_metadata(text: str) -> str | None:
    """What a Python package's METADATA or PKG-INFO states: License-Expression, License in a line, or its classifiers."""
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0].splitlines()
    fields = [(name.lower(), value.strip()) for name, colon, value in (line.partition(":") for line in head) if colon]
    for wanted in ("license-expression", "license"):
        for name, value in fields:
            if name == wanted and (known := license_of_expression(value)):
                return known
    classes = [value.split("::")[-1] for name, value in fields if name == "classifier" and value.startswith("License ::")]
    told = [license_of_expression(value) for value in classes if value.strip() != "OSI Approved"]
    return " AND ".join(sorted({known for known in told if known})) if told and all(told) else None


def license_of_expression(stated: str) -> str | None:
    """A name, alias or SPDX expression with the canonical ids; None where one of its names is not known."""
    stated = stated[:_EXPRESSION_LENGTH].strip()
    if known := _IDS.get(stated.lower()) or _ALIASES.get(" ".join(_WORDS.findall(stated.lower()))):
        return known
    parts = _TOKEN.findall(stated)
    names: list[str] = []
    for place, part in enumerate(parts):
        is_exception = place > 0 and parts[place - 1].upper() == "WITH"
        if part.upper() in ("AND", "OR", "WITH"):
            names.append(part.upper())
        elif part in "()" or is_exception:
            names.append(part)
        elif known := _IDS.get(part.lower()):
            names.append(known)
        else:
            return None
    expression = " ".join(names).replace("( ", "(").replace(" )", ")")
    return expression if _evaluated(names, frozenset()) is not None else None


def is_permitted(expression: str) -> bool:
    """Whether code under this SPDX expression may be taken."""
    return bool(_evaluated(_TOKEN.findall(expression), PERMITTED))


def _noticed(joined: str) -> str | None:
    """The licences that notices in a text of words name."""
    return " AND ".join(name for name, notice in sorted(_NOTICES, key=lambda known: known[0]) if notice.search(joined)) or None


def _found(joined: str) -> list[_Fingerprint]:
    """The licences whose sentences stand in a text of words."""
    return [
        known
        for known in _TEXTS
        if all(words in joined for words in known.has) and not any(words in joined for words in known.lacks)
    ]


def _evaluated(parts: list[str], permitted: frozenset[str]) -> bool | None:
    """Whether an expression holds: AND binds closer than OR. None for what is no expression. Two stacks, no recursion."""
    values: list[bool] = []
    operators: list[str] = []
    rank = {"OR": 1, "AND": 2}
    wants_name = True

    def reduce(least: int) -> None:
        while operators and rank.get(operators[-1], 0) >= least:
            right, left = values.pop(), values.pop()
            values.append((left and right) if operators.pop() == "AND" else (left or right))

    skip = False
    for place, part in enumerate(parts):
        if skip:
            skip = False
        elif part == "(" and wants_name:
            operators.append(part)
        elif part == ")" and not wants_name:
            reduce(1)
            if not operators:
                return None
            operators.pop()
        elif part in rank and not wants_name:
            reduce(rank[part])
            operators.append(part)
            wants_name = True
        elif part == "WITH" and not wants_name and place + 1 < len(parts):
            skip = True
        elif wants_name and part not in ("(", ")", "AND", "OR", "WITH"):
            values.append(part in permitted)
            wants_name = False
        else:
            return None
    if wants_name:
        return None
    reduce(1)
    return values[0] if len(values) == 1 and not operators else None
