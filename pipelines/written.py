"""The text of a document as the shards hold it: without the paragraphs whose one kept copy stands elsewhere, and, where its source
says so, with e-mail and IP addresses masked. Who judges, trains on or hands out a document takes its text from here; `fit`, which
draws its sample between the two steps, takes them one by one.
"""

from __future__ import annotations

import pyarrow as pa

from pipelines.dedup.paragraphs import without
from quality import pii


def written(texts: pa.Array, dropped: pa.Array, mask: bool) -> tuple[pa.Array, pa.Array]:
    """(texts as they are written, the same before addresses were masked) of texts (large_string) as they were extracted.

    dropped: list<int32>, of each text the numbers of the paragraphs that are left out; mask: of their source.
    """
    found = without(texts, dropped)
    return pii.mask(found) if mask else found, found
