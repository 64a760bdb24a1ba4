"""The evaluation sets of a comparison: which documents they hold, and which of these an arm may have seen.

* A set with `files`: JSON lines with `text` and, where documents belong together (thread, host, author), `cluster`. A document is
  named `<file>#<line from 0>`.
* A set without: what a variant keeps of the source of the set's name for validation, as it was judged. A document is named by its
  locator. In the groups web and junk a cluster is the URL's host, and documents of a host that the source has training documents of
  too are left out, unless all that have a host are such: the run splits by near-duplicate cluster.
* A document without a cluster is one of its own, called by its set and name. Clusters of one name are one, in whatever sets.

A text that stands twice in a set is one document, the first by name of file and line. `set_bytes` of a set are taken in whole
clusters, in the order of the hash of set and cluster: a cluster for which there is no more room is passed over, so that a set is
filled to nearly its size, whatever the sizes of its clusters; where none fits, the first one is the set. Neither the order of files
nor where they lie changes anything.

Documents that overlap with what an arm may have learned from (`leaks`) are marked for all arms and stay in the list, since the
result before their removal is told too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.parts import ROW_BITS, Part
from pipelines.recipe_compare import Compare, Group
from pipelines.schema import KEEP, TRAIN, VALIDATION
from pipelines.store import read_columns
from train import evaluate
from train.compare.documents import Rows, Run, read_texts
from train.compare.leaks import Kind, find_leaks
from train.evaluate import Document, Encoder
from train.files import digest

_BY_HOST: tuple[Group, ...] = ("web", "junk")  # a curated source is often one host, whose documents are no more alike for that
_NOT_YET = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class SetSpec:
    """A set by name, and where its documents are: in `files`, or, where there are none, among those `variant` holds out."""

    name: str
    group: Group
    files: tuple[str, ...] = ()
    variant: str | None = None

    def digests(self) -> list[list[str]]:
        """[name, sha256] of each file, in the order of names. Raises UserError where one cannot be read."""
        found = []
        for path in self.ordered():
            try:
                found.append([Path(path).name, digest(Path(path))])
            except OSError as error:
                reason = f"cannot be read ({error.strerror}); give a file of JSON lines"
                raise UserError(f"compare.sets.{self.name}: {path} {reason}") from error
        return found

    def ordered(self) -> list[str]:
        """The files by name: documents are called by it, so that no two may have the same."""
        names: dict[str, str] = {}
        for path in sorted(self.files):
            other = names.setdefault(Path(path).name, path)
            if other != path or self.files.count(path) > 1:
                raise UserError(f"compare.sets.{self.name}: {other} and {path} have one name; documents go by it: rename one")
        return [names[name] for name in sorted(names)]


@dataclass(frozen=True, slots=True)
class SetRead:
    """The documents that were taken for a set, those of a cluster together; how many were there again, and had no room.

    trained_hosts: how many were left out since documents of their host are trained on; None where the set is not, or not all of it,
    split by host.
    """

    documents: tuple[Document, ...]
    duplicates: int
    left_out: int
    trained_hosts: int | None = None


def specs(asked: Compare, base: str) -> list[SetSpec]:
    """The sets that a recipe asks for, by name; relative paths start from the folder `base`."""
    variant = asked.variants[-1]
    return [
        SetSpec(name, one.group, tuple(str(Path(base, file)) for file in one.files or ()), None if one.files else variant)
        for name, one in sorted(asked.sets.items())
    ]


def read(run: Run, wanted: Sequence[SetSpec], encoder: Encoder, set_bytes: int) -> dict[str, SetRead]:
    """Every set by name, in the order given. Raises UserError on two of one name, one without documents, and unreadable files."""
    found: dict[str, SetRead] = {}
    for spec in wanted:
        if spec.name in found:
            raise UserError(f"compare.sets: two sets are called {spec.name}; results are told by name: rename one")
        found[spec.name] = read_set(spec, encoder, set_bytes) if spec.files else held_out(run, spec, encoder, set_bytes)
    return found


def read_set(spec: SetSpec, encoder: Encoder, set_bytes: int) -> SetRead:
    """The set of a spec's files. Raises UserError, naming file and line, on a file that is missing or not as it should be."""
    later = cast(Encoder, lambda text: _NOT_YET)  # only documents that are taken are worth encoding
    documents = [one for path in spec.ordered() for one in evaluate.read_documents(path, later, spec.name)]
    return _taken(documents, encoder, set_bytes)


def held_out(run: Run, spec: SetSpec, encoder: Encoder, set_bytes: int) -> SetRead:
    """What `spec.variant` keeps of the source `spec.name` for validation. Raises UserError where that is nothing."""
    documents: list[Document] = []
    for part in run.parts:
        if part.source != spec.name:
            continue
        decisions = read_columns(run.store, part.decisions(str(spec.variant)), ["verdict", "split"])
        mine = pc.and_(pc.equal(decisions.column("verdict"), KEEP), pc.equal(decisions.column("split"), VALIDATION)).to_numpy()
        if not mine.any():
            continue
        told = read_columns(run.store, part.path("documents"), ["locator", "url"]).filter(pa.array(mine)).to_pylist()
        texts = [text for batch in read_texts(run, _rows(part, mine)) for text in batch.to_pylist()]
        for one, text in zip(told, texts, strict=True):
            cluster = _host(one["url"]) if spec.group in _BY_HOST else None
            documents.append(Document(spec.name, one["locator"], cluster or one["locator"], text, _NOT_YET))
    documents = [document for document in documents if document.text]
    if not documents:
        raise UserError(
            f"compare.sets.{spec.name}: {spec.variant} holds out no document of a source of this name; give the set files, or "
            "build with tokens.validation above 0"
        )
    if spec.group not in _BY_HOST:
        return _taken(documents, encoder, set_bytes)
    trained = _trained_hosts(run, spec.name)
    hosted = [document for document in documents if document.cluster != document.doc]
    if all(document.cluster in trained for document in hosted):
        return _taken(documents, encoder, set_bytes)
    apart = [document for document in documents if document.cluster not in trained]
    found = _taken(apart, encoder, set_bytes)
    return found if len(hosted) < len(documents) else replace(found, trained_hosts=len(documents) - len(apart))


def decontaminated(
    documents: Sequence[Document], corpus: Iterable[pa.Array]
) -> tuple[list[Kind | None], dict[str, dict[str, Any]]]:
    """(how each document leaks into the corpus, or None; facts by domain), domains as they come.

    facts: documents, bytes and clusters that are left, removed ({ngram, jaccard}: documents) and removed_bytes. corpus: batches of
    texts (large_string). Raises UserError where nothing is left of a domain.
    """
    found = find_leaks([document.text for document in documents], corpus)
    leaks = [None if leak is None else leak.kind for leak in found]
    facts: dict[str, dict[str, Any]] = {}
    clusters: dict[str, set[str]] = {}
    for document, leak in zip(documents, leaks, strict=True):
        empty = {"documents": 0, "bytes": 0, "clusters": 0, "removed": {"ngram": 0, "jaccard": 0}, "removed_bytes": 0}
        mine, size = facts.setdefault(document.domain, empty), len(document.text.encode())
        if leak is not None:
            mine["removed"][leak] += 1
            mine["removed_bytes"] += size
            continue
        mine["documents"] += 1
        mine["bytes"] += size
        clusters.setdefault(document.domain, set()).add(document.cluster)
        mine["clusters"] = len(clusters[document.domain])
    for domain, mine in facts.items():
        if not mine["documents"]:
            ngram, jaccard = mine["removed"]["ngram"], mine["removed"]["jaccard"]
            raise UserError(
                f"compare.sets.{domain}: all {ngram + jaccard} documents leak into what the arms may learn from: {ngram} share a "
                f"run of words with it, {jaccard} are like a document of it; give documents that the run does not hold"
            )
    return leaks, facts


def corpus_texts(run: Run) -> Iterator[pa.Array]:
    """The texts of all documents of a run that are not held out, as they were judged (large_string, a batch a row group).

    Whatever is learned of a run is learned from these: a variant's training documents, and with them every pool, are some of them,
    and so are the texts that classifiers, perplexity models and the tokenizer were fitted to, curated and not. Evaluation documents
    that leak into none of these texts leak into no arm. The validation split is the same in all variants and learned by nothing. A
    tokenizer that the recipe gives as a file learned from texts that nobody knows here.
    """
    variant = next(iter(run.recipe.variants))
    for part in run.parts:
        split = read_columns(run.store, part.decisions(variant), ["split"]).column("split")
        yield from read_texts(run, _rows(part, pc.equal(split, TRAIN).to_numpy()))


# -- which documents ----------------------------------------------------------------------------------------------------------


def _taken(documents: Sequence[Document], encoder: Encoder, set_bytes: int) -> SetRead:
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.text, document)
    distinct = list(first.values())
    taken = choose(distinct, set_bytes)
    encoded = tuple(replace(one, cluster=_cluster(one), ids=encoder(one.text)) for one in taken)
    return SetRead(encoded, len(documents) - len(distinct), len(distinct) - len(taken))


def _cluster(document: Document) -> str:
    """Equal names bind documents of all sets together; one of its own goes by its set too, since two sets may have files of one
    name."""
    return f"{document.domain}/{document.doc}" if document.cluster == document.doc else document.cluster


def choose(documents: Sequence[Document], most_bytes: int) -> list[Document]:
    """Whole clusters, in the order of their hash, of at most `most_bytes` UTF-8 bytes; the first one where none is so small."""
    clusters: dict[tuple[str, str], list[Document]] = {}
    for document in documents:
        clusters.setdefault((document.domain, document.cluster), []).append(document)
    ordered = sorted(clusters, key=lambda name: (hashlib.blake2b("\0".join(name).encode(), digest_size=16).digest(), name))
    chosen: list[Document] = []
    room = most_bytes
    for name in ordered:
        size = sum(len(document.text.encode()) for document in clusters[name])
        if size <= room:
            chosen += clusters[name]
            room -= size
    return chosen or clusters[ordered[0]]


def _trained_hosts(run: Run, source: str) -> set[str]:
    """The hosts of a source's documents that are not held out."""
    variant = next(iter(run.recipe.variants))  # the split is the same in all
    urls: set[str | None] = set()
    for part in run.parts:
        if part.source == source:
            trained = pc.equal(read_columns(run.store, part.decisions(variant), ["split"]).column("split"), TRAIN)
            urls.update(read_columns(run.store, part.path("documents"), ["url"]).filter(trained).column("url").unique().to_pylist())
    return {host for host in map(_host, urls) if host is not None}


def _rows(part: Part, mask: np.ndarray) -> Rows:
    """The rows of a part where the mask is true, for `read_texts`, which looks at nothing but their places."""
    row_R = (np.int64(part.index) << ROW_BITS) + np.flatnonzero(mask)
    none_R, count = np.zeros(len(row_R), np.int64), len(row_R)
    return Rows((part.source,), none_R, row_R, none_R, np.full(count, np.nan, np.float32), np.zeros((count, 16), np.uint8))


def _host(url: str | None) -> str | None:
    """The host of an URL in lower case; None where there is none."""
    try:
        return urlsplit(url or "").hostname
    except ValueError:  # half a bracket of an IPv6 address, in a page's own words
        return None
