"""Texts scored in this process, with the very scorer of `winnow score`.

A scorer holds models and scratch memory, and serves one request at a time. It is made when it is first asked for and kept for
the next request with the same corpus, manifest and variant; the one that was idle longest goes when there are too many. So a
rebuilt corpus is scored by its new models, and memory is bounded by the scorings at once and the idle scorers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from quality.service.corpora import Corpus, told
from quality.service.limits import Slots
from quality.service.problems import Problem
from quality.service.settings import Limits

if TYPE_CHECKING:
    from pipelines.score import TextScorer

_Key = tuple[str, str, str | None]  # corpus, the hash of its manifest, variant; "" for language and signals alone
_ALONE: _Key = ("", "", None)
_WARMING = "The river rises in the mountains and flows to the sea."


class Scorers:
    """The idle scorers, and how many may be at work: `score` is called in one of `slots`."""

    def __init__(self, limits: Limits) -> None:
        self.slots = Slots(limits.scorings, limits.wait_seconds, "scorings")
        self._most_idle = limits.idle_scorers
        self._idle: list[tuple[_Key, TextScorer]] = []  # the longest idle first
        self._lock = threading.Lock()

    def score(self, texts: Sequence[str], corpus: Corpus | None, variant: str | None, explain: bool) -> list[dict[str, Any]]:
        """One judgement a text. Raises Problem 404 (no such variant) and 409 (corpus not complete)."""
        key = _ALONE if corpus is None else (corpus.id, corpus.etag, variant)
        if corpus is not None:
            _check_variant(corpus, variant)
        elif variant is not None:
            raise Problem(404, "no such variant: `variant` needs `corpus`, whose variant it is")
        scorer = self._taken(key) or _made(corpus, variant)
        found = scorer(texts, explain)
        self._give_back(key, scorer)  # one that failed is not kept
        return found

    def warm(self) -> None:
        """Makes the scorer without a corpus: imports, compiled kernels, the language model."""
        try:
            self.score([_WARMING], None, None, False)
        except Problem:  # no language model: what /readyz says, and a request for it
            return

    def _taken(self, key: _Key) -> TextScorer | None:
        with self._lock:
            for place in range(len(self._idle) - 1, -1, -1):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
        return None

    def _give_back(self, key: _Key, scorer: TextScorer) -> None:
        with self._lock:
            self._idle.append((key, scorer))
            del self._idle[: -self._most_idle]


def _check_variant(corpus: Corpus, variant: str | None) -> None:
    variants = corpus.complete().recipe["variants"]
    if variant is not None and variant not in variants:
        raise Problem(404, f"corpus {corpus.id!r} has no such variant; it has {', '.join(variants)}")


def _made(corpus: Corpus | None, variant: str | None) -> TextScorer:
    from pipelines.score import TextScorer

    if corpus is None:
        try:
            return TextScorer(None, None)
        except UserError as error:
            raise Problem(503, str(error)) from error
    try:
        return TextScorer(str(corpus.path), variant)
    except UserError as error:
        raise Problem(409, told(corpus, error)) from error
