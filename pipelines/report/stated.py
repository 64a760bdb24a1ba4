"""What a corpus says of itself in the words of others' catalogues: languages, licenses, size. From stats.json.

| what       | names                                                                                                    |
|------------|----------------------------------------------------------------------------------------------------------|
| language   | as lid.176 names it (ISO 639), where it is at least `LEAST` of the documents that some variant keeps     |
| license    | SPDX ids in the records' statements; the hub's ids are these in lower case, `other` and `unknown`        |
| size       | the hub's classes of documents in the largest variant                                                    |

The hub is Hugging Face's: its dataset cards begin with these keys in YAML.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from pipelines.report.figures import summed
from pipelines.sources.licenses import license_of_expression

UNDETERMINED = "und"  # ISO 639's code for a text whose language is none
LEAST = 0.001  # of a variant's documents: below it a language is as likely a mistake of the identifier
OTHER, UNKNOWN = "other", "unknown"

_HUB_LICENSES = frozenset(
    """agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsl-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 epl-1.0 epl-2.0 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 mit mpl-2.0 ncsa ofl-1.1 unlicense
    wtfpl zlib""".split()
)
_COMMONS = re.compile(r"https?://creativecommons\.org/(?:licenses/(by(?:-nc|-nd|-sa){0,2})|publicdomain/(zero))/([1-4]\.[05])/?")
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def kept_languages(stats: Mapping[str, Any], variant: str | None) -> dict[str, int]:
    """Language -> documents that the variant keeps; of all documents without one."""
    found = [one for one in stats["sources"].values() if one]
    return summed((one["variants"][variant]["kept"] if variant else one["all"])["languages"] for one in found)


def languages(stats: Mapping[str, Any]) -> list[str]:
    """The languages that the corpus states, sorted."""
    stated: set[str] = set()
    for variant in stats["variants"]:
        counts = kept_languages(stats, variant)
        least = LEAST * sum(counts.values())
        stated |= {name for name, count in counts.items() if count >= least and count and name != UNDETERMINED}
    return sorted(stated)


def spdx(statement: str) -> list[str]:
    """The SPDX ids in a license's statement, sorted: an expression, a common name or a Creative Commons URL; [] for others."""
    if commons := _COMMONS.fullmatch(statement.strip()):
        return ["CC0-1.0" if commons[2] else f"CC-{commons[1].upper()}-{commons[3]}"]
    expression = license_of_expression(statement)
    if expression is None:
        return []
    names = re.sub(r"\bWITH [^\s()]+", "", expression)
    return sorted({name for name in re.findall(r"[^\s()]+", names) if name not in ("AND", "OR")})


def licenses(stats: Mapping[str, Any]) -> list[str]:
    """SPDX ids of all licenses that records state and that have one, sorted."""
    found = {name for one in stats["sources"].values() if one for stated in one["licenses"]["largest"] for name in spdx(stated)}
    return sorted(name for name in found if not name.startswith("LicenseRef-"))


def hub_licenses(stats: Mapping[str, Any]) -> list[str]:
    """The hub's ids; `other` where a statement has none, `unknown` where records state none."""
    found: set[str] = set()
    for one in stats["sources"].values():
        if not one:
            continue
        for stated in one["licenses"]["largest"]:
            found |= {_hub_license(name) for name in spdx(stated)} or {OTHER}
        if one["licenses"]["others"]:
            found.add(OTHER)
        if one["licenses"]["without"]:
            found.add(UNKNOWN)
    return sorted(found, key=lambda name: (name in (OTHER, UNKNOWN), name))


def _hub_license(name: str) -> str:
    plain = name.lower().removesuffix("-only").removesuffix("-or-later").removesuffix("+")
    return plain if plain in _HUB_LICENSES else OTHER


def size_category(documents: int) -> str:
    """The hub's class of so many documents."""
    place = bisect_right([10**power for power in range(3, 13)], documents)
    if place == len(_SIZES):
        return f"n>{_SIZES[-1]}"
    return f"{_SIZES[place - 1]}<n<{_SIZES[place]}" if place else f"n<{_SIZES[0]}"
