"""Which pages a wiki cites: LLaMA trains "a linear model to classify pages used as references in Wikipedia v.s. randomly sampled
pages, and discarded pages not classified as references" (Touvron et al. 2023, section 2.1).

The documents of a dump have no citations any more, so its markup is read once more, a task a worker, as a stream:

| what stands in an article                          | what is cited                                                      |
|----------------------------------------------------|--------------------------------------------------------------------|
| `[https://example.org/a title]`, `[//example.org]` | the URL, up to a blank or a bracket                                |
| `{{cite web | url = https://example.org/a | ...}}` | the URL, up to a blank, a bar or a brace, whatever the parameter   |
| `<ref>https://example.org/a.</ref>`, a bare URL    | the URL without the punctuation at its end (MediaWiki's free links) |
| `https://web.archive.org/web/2010/http://a.org/`   | the page that the archive keeps: `http://a.org/`                   |
| a comment                                          | nothing                                                            |
| a template that makes a URL of something else (a DOI, an official site) | nothing: the URL does not stand in the dump   |

All links of an article count, those of "External links" too. Pages that are no documents (`sources.mediawiki`) cite nothing.

A URL is kept as 8 bytes, the hash of its normalised form (`urls`), big-endian, sorted, each once: models/references.bin. With n of
them a URL that nobody cites is taken for a cited one with probability n / 2^64.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import apache_beam as beam
import numpy as np

from pipelines import models
from pipelines.beam_parts import Each, spread
from pipelines.errors import CheckError
from pipelines.plan import Plan, Task
from pipelines.recipe import Recipe
from pipelines.records import Limits
from pipelines.sources import check_unchanged
from pipelines.sources.mediawiki import markups
from pipelines.sources.wikitext import without_comments
from pipelines.store import Store, stage_key
from pipelines.urls import normalised

VERSION = 1

_URL = re.compile(r"""(\[?)((?:https?:|(?<=\[)(?=//))//[^\s\[\]<>"{}|\x00-\x1f\x7f\ufffd]+)""", re.IGNORECASE)
_END = re.compile(r"''|&(?:lt|gt|nbsp|quot);")
_ARCHIVE = re.compile(r"(?:https?:)?//web\.archive\.org/web/[^/]*/(https?://.+)", re.IGNORECASE)


def cited(markup: str) -> Iterator[str]:
    """Every URL of an article, as it is written but for escapes of markup, in order."""
    for found in _URL.finditer(without_comments(markup)):
        url = _END.split(found[2], maxsplit=1)[0].replace("&amp;", "&")
        if not found[1]:
            url = url.rstrip(",;.:!?" if "(" in url else ",;.:!?)")
        archived = _ARCHIVE.fullmatch(url)
        yield archived[1] if archived else url


def key_of(url: str) -> int | None:
    """The 64 bits that stand for a URL; None for what is no http(s) URL."""
    plain = normalised(url)
    if plain is None:
        return None
    return int.from_bytes(blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def are_cited(keys: np.ndarray, urls: Sequence[str | None]) -> np.ndarray:
    """bool [n]: whether each URL is one of `keys`, uint64 [m] in order."""
    found = [None if url is None else key_of(url) for url in urls]
    known = np.array([key is not None for key in found], bool)
    asked = np.array([key or 0 for key in found], np.uint64)
    places = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
    return known & (keys[places] == asked) if len(keys) else np.zeros(len(found), bool)


# -- the pass over the dumps ------------------------------------------------------------------------------------------------


def task_path(task: Task) -> str:
    """Where a run keeps what the dumps of one task cite."""
    return f"references/{task.source}/{task.name}.bin"


def tasks_of(recipe: Recipe, plan: Plan) -> list[Task]:
    """The tasks whose dumps are read for what they cite."""
    named = recipe.fit.quality.cited_in if recipe.fit.quality is not None else []
    return [task for task in plan.tasks if task.source in named]


def task_key(task: Task, limits: Limits) -> str:
    return stage_key("references", VERSION, [limits.record_bytes], [one.sha256 for one in task.inputs])


def cite_task(store: Store, task: Task, limits: Limits) -> None:
    """Reads the dumps of a task and publishes the hashes of what they cite."""
    path, keys, pages, links = task_path(task), array("Q"), 0, 0
    if store.is_finished(path, task_key(task, limits)):
        return
    store.begin(path)
    for source_input in task.inputs:
        for markup in markups(source_input, limits):
            pages += 1
            for url in cited(markup):
                links += 1
                if (key := key_of(url)) is not None:
                    keys.append(key)
        check_unchanged(source_input, "mediawiki")
    distinct = np.unique(np.frombuffer(keys, np.uint64)) if keys else np.zeros(0, np.uint64)
    published = store.publish(path, distinct.astype(">u8").tobytes())
    store.finish(published, task_key(task, limits), pages=pages, links=links, urls=len(distinct))


def publish(store: Store, recipe: Recipe, plan: Plan) -> None:
    """Merges what the tasks found into models/references.bin; takes it away where the recipe does not ask for it."""
    tasks = tasks_of(recipe, plan)
    if not tasks:
        store.begin(models.REFERENCES)
        store.remove(models.REFERENCES)
        return
    sidecars = [store.sidecar(task_path(task)) or {} for task in tasks]
    key = stage_key(models.REFERENCES, VERSION, [], [sidecar["sha256"] for sidecar in sidecars])
    if store.is_finished(models.REFERENCES, key):
        return
    store.begin(models.REFERENCES)
    keys = np.unique(np.concatenate([_keys(store, task_path(task)) for task in tasks]))
    store.finish(store.publish(models.REFERENCES, keys.astype(">u8").tobytes()), key, urls=len(keys))


def load(store: Store) -> np.ndarray:
    """uint64 [n], ascending: what the run's wikis cite."""
    return _keys(store, models.REFERENCES)


def _keys(store: Store, path: str) -> np.ndarray:
    data = store.read(path)
    if len(data) % 8:
        raise CheckError(f"{store.url(path)}: {len(data)} bytes are no hashes of 8; remove it and build again")
    return np.frombuffer(data, ">u8").astype(np.uint64)


def digest(store: Store, recipe: Recipe) -> str:
    """What a sample takes of the citations into its key; "" where the recipe asks for none."""
    sidecar = store.sidecar(models.REFERENCES)
    return str(sidecar["sha256"]) if sidecar is not None and recipe.fit.quality and recipe.fit.quality.cited_in else ""


# -- wiring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _CiteWorker:
    store: Store
    limits: Limits

    def start(self) -> Callable[[Task], None]:
        return lambda task: cite_task(self.store, task, self.limits)


def stale_tasks(store: Store, recipe: Recipe, plan: Plan) -> list[Task]:
    """The tasks whose citations do not stand under their present key."""
    limits = Limits(recipe.limits.record_bytes)
    return [task for task in tasks_of(recipe, plan) if not store.is_finished(task_path(task), task_key(task, limits))]


def wire(pipeline: beam.Pipeline, store: Store, recipe: Recipe, tasks: Sequence[Task]) -> None:
    """dumps -> references/"""
    worker = _CiteWorker(store, Limits(recipe.limits.record_bytes))
    spread(pipeline, "Dumps", tasks) | "Cite" >> beam.ParDo(Each(worker))
