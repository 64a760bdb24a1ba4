"""The recipe's evaluation sets, lists of terms and bad words: files -> models/evaluations.safetensors, models/terms.safetensors and
models/bad_words.json.

They are read to their end before anything runs, so that a missing or damaged one costs nothing, and again where an index does not
stand under its present key, which is made of the content of the files.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines import models
from pipelines.dedup import phrases
from pipelines.dedup.evaluations import build_index, read_texts
from pipelines.dedup.phrases import GivenFile, PhraseIndex
from pipelines.dedup.terms import build_terms, read_terms
from pipelines.errors import UserError
from pipelines.recipe import Recipe
from pipelines.store import Store, canonical_json, stage_key

VERSION = 1

_Files = dict[str, list[GivenFile]]
_Read = Callable[[str], Iterator[str]]


@dataclass(frozen=True, slots=True)
class GivenLists:
    """The files of evaluation sets and of lists of terms by name, as they are when a build begins; and the bad words themselves."""

    evaluations: _Files
    terms: _Files
    bad_words: tuple[str, ...]  # in lower case and in order, each once

    @staticmethod
    def of(recipe: Recipe, base: str) -> GivenLists:
        """Relative paths start from `base`. A file that is missing, or not what it should be, is a UserError."""
        return GivenLists(
            _given("evaluations", recipe.evaluations, base, read_texts),
            _given("terms", recipe.terms, base, read_terms),
            _bad_words(recipe.bad_words, base),
        )


def _bad_words(paths: Sequence[str], base: str) -> tuple[str, ...]:
    """The words of the files, in the form that normalised text has."""
    try:
        return tuple(sorted({_plain(word) for path in paths for word in read_terms(_located(path, base))}))
    except UserError as error:
        raise UserError(f"bad_words: {error}") from error


def _plain(word: str) -> str:
    return unicodedata.normalize("NFC", word.lower())


def _located(path: str, base: str) -> str:
    return path if "://" in path or path.startswith("/") else posixpath.join(base, path)


def _given(key: str, named: Mapping[str, list[str]], base: str, read: _Read) -> _Files:
    found: _Files = {}
    for name, paths in named.items():
        urls = [_located(path, base) for path in paths]
        try:
            found[name] = [phrases.given_file(url) for url in urls]
            for url in urls:
                for _ in read(url):
                    pass
        except UserError as error:
            raise UserError(f"{key}.{name}: {error}") from error
    return found


def publish_indexes(store: Store, lists: GivenLists) -> None:
    """Publishes the indexes where they do not stand yet, and takes away those that the recipe no longer names."""
    _publish(store, models.EVALUATIONS, lists.evaluations, read_texts, build_index)
    _publish(store, models.TERMS, lists.terms, read_terms, build_terms)
    _publish_words(store, models.BAD_WORDS, lists.bad_words)


def _publish_words(store: Store, path: str, words: Sequence[str]) -> None:
    key = stage_key(path, VERSION, [], list(words))
    if words and store.is_finished(path, key):
        return
    store.begin(path)
    if words:
        store.finish(store.publish(path, canonical_json(list(words))), key)
    else:
        store.remove(path)


def _publish(
    store: Store, path: str, given: _Files, read: _Read, build: Callable[[Mapping[str, Iterable[str]]], PhraseIndex]
) -> None:
    made_from = [[name, [one.sha256 for one in files]] for name, files in given.items()]
    key = stage_key(path, VERSION, [phrases.FORMAT], made_from)
    if given and store.is_finished(path, key):
        return
    store.begin(path)
    if not given:
        store.remove(path)
        return
    index = build({name: (text for one in files for text in read(one.url)) for name, files in given.items()})
    for one in (one for files in given.values() for one in files):
        if phrases.given_file(one.url) != one:
            raise UserError(f"{one.url}: changed while the run was built; build it again")
    store.finish(store.publish(path, phrases.save(index)), key)
