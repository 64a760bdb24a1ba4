"""score: texts in, judgements out, with the models and the thresholds of a run, or with the language model alone.

JSON lines in, each an object with `text`; one object a line out, in the same order. A blank line is no line. A line that
cannot be judged gives {"line": number, "error": reason of schema.RejectReason, "detail"} in its place, so that outputs stay
aligned with inputs, and the others are judged all the same. Every judgement has the same keys:

    language, language_score    by lid.176
    quality                     calibrated probability of "curated"; null without a run, or where the run has no classifier
    signals                     the numbers that rules judge, and with a run also n_tokens, and perplexity where it has a model
    verdict                     "keep", or the first reason of the variant's default policy; null without a variant
    keep_probability            what a Pareto draw would do; a text outside a corpus has no doc_id, hence no draw of its own

Duplicates need a corpus and are not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.finished import open_run
from pipelines.judge import Judgement, ResolvedDraw, judge_length, judge_text
from pipelines.models import Models
from pipelines.recipe import Draw, Policy, Recipe
from pipelines.recipe_file import RECIPE, parse
from pipelines.schema import KEEP, Reason, RejectReason
from pipelines.store import Store

LINE_BYTES = 64 << 20  # the limit for one line, as for one record of a build
_BATCH_LINES, _BATCH_BYTES = 500, 8 << 20
_CONTRIBUTIONS = 10


class TextScorer:
    """Judges texts. Holds scratch memory of the kernels: one per thread."""

    def __init__(self, folder: str | None, variant: str | None) -> None:
        """folder: a run, or None for language and signals only; variant: whose verdict to add. Faults are UserErrors."""
        from pipelines.annotate import Annotator

        if folder is None and variant is not None:
            raise UserError("--variant needs --model DIR, the run whose variant it is")
        self._fitted = folder is not None
        self._models, recipe = _of_run(folder) if folder is not None else (_language_only(), None)
        self._annotator = Annotator(self._models, recipe.language_characters if recipe is not None else None)
        self._bounds = {language: (model.head, model.middle) for language, model in self._models.perplexity.items()}
        self._policy: Policy | None = None
        self._solution: ResolvedDraw | None = None
        if folder is not None and recipe is not None and variant is not None:
            self._policy, self._solution = _judgement_of(folder, recipe, variant)

    def __call__(self, texts: Sequence[str], explain: bool = False) -> list[dict[str, Any]]:
        """One judgement a text. explain: also `contributions`, the words that moved the quality's margin most."""
        from pipelines.normalise import normalise

        if not texts:
            return []
        normalised = normalise(list(texts), "prose")
        signals = self._annotator(normalised)
        found = [self._numbers(row) for row in signals.drop_columns(["token_ids"]).to_pylist()]
        if self._policy is not None:
            self._judge(signals, self._policy, found)
        if explain:
            for row, text in zip(found, normalised.to_pylist(), strict=True):
                row["contributions"] = self._contributions(text)
        return found

    def _numbers(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self._fitted:
            del row["n_tokens"]
        return {
            "language": row.pop("language"),
            "language_score": _short(row.pop("language_score")),
            "quality": _short(row.pop("quality")),
            "signals": {key: _short(value) for key, value in row.items() if value is not None},
            "verdict": None,
            "keep_probability": None,
        }

    def _judge(self, signals: pa.RecordBatch, policy: Policy, found: list[dict[str, Any]]) -> None:
        judgement, draw = Judgement(len(found)), self._solution
        judge_text(judgement, pa.Table.from_batches([signals]), policy, np.zeros(len(found), bool), self._bounds)
        quality = np.rint(signals.column("quality").to_numpy(zero_copy_only=False).astype(np.float64) * 1e4) / 1e4
        if draw is not None and draw.draw.draw == "cut":
            judgement.drop(quality < draw.threshold, Reason.QUALITY_CUT, quality, draw.threshold)
        judge_length(judgement, signals.column("text_bytes").to_numpy(), policy)
        for i, row in enumerate(found):
            row["verdict"] = KEEP if judgement.standing[i] else judgement.reasons[judgement.code[i]]
            if draw is not None and draw.draw.draw == "pareto":
                row["keep_probability"] = round(float(draw.probability(quality[i : i + 1])[0]), 6)

    def _contributions(self, text: str) -> list[tuple[str, float]]:
        from quality import classifier

        if self._models.quality is None:
            return []
        words = classifier.contributions(self._models.quality, text, _CONTRIBUTIONS)
        return [(word, round(amount, 6)) for word, amount in words]


def _language_only() -> Models:
    from pipelines import bpe, packages
    from quality import language

    path = packages.language_model()
    return Models(language.parse(path.read_bytes(), str(path)), bpe.bytes_only(), None, {})


def _of_run(folder: str) -> tuple[Models, Recipe]:
    from pipelines import models

    store = open_run(folder)
    loaded = models.load(store)
    return loaded, parse(store.read(RECIPE).decode(), store.url(RECIPE))


def _judgement_of(folder: str, recipe: Recipe, variant: str) -> tuple[Policy, ResolvedDraw | None]:
    """A variant's default policy, and its quality draw as the run solved it."""
    from pipelines.select_settings import DEFAULT_GROUP, solution_path

    if variant not in recipe.variants:
        raise UserError(f"{folder}: no variant {variant!r}; it has {', '.join(recipe.variants)}")
    policy = recipe.variants[variant].default
    if not isinstance(policy.quality, Draw):
        return policy, None
    solved = Store(folder).read_json(solution_path(variant)).get(DEFAULT_GROUP)
    if solved is None:
        raise UserError(f"{folder}: no source of {variant!r} uses its default draw, so that the run never solved it")
    return policy, ResolvedDraw(policy.quality, solved["shift"], solved["solved_threshold"])


def _short(value: Any) -> Any:
    """A float32 by the fewest digits that name it."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


# -- lines ------------------------------------------------------------------------------------------------------------------


def score_lines(stream: BinaryIO, scorer: TextScorer, explain: bool = False) -> Iterator[dict[str, Any]]:
    """A judgement, or an object with `error`, for every line of a stream of JSON lines that is not blank."""
    waiting: list[str | dict[str, Any]] = []  # texts, and the errors between them
    size = 0
    for number, line in _lines(stream):
        found = _text_of(number, line)
        waiting.append(found)
        size += len(found) if isinstance(found, str) else 0
        if len(waiting) >= _BATCH_LINES or size >= _BATCH_BYTES:
            yield from _judged(waiting, scorer, explain)
            waiting, size = [], 0
    yield from _judged(waiting, scorer, explain)


def _judged(waiting: Sequence[str | dict[str, Any]], scorer: TextScorer, explain: bool) -> Iterator[dict[str, Any]]:
    judged = iter(scorer([text for text in waiting if isinstance(text, str)], explain))
    for found in waiting:
        yield next(judged) if isinstance(found, str) else found


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of every line that is not blank; None for one over the limit, of which no more is held."""
    number = 0
    while line := stream.readline(LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(LINE_BYTES)
            yield number, None
        elif line.strip():
            yield number, line


def _text_of(number: int, line: bytes | None) -> str | dict[str, Any]:
    def failed(reason: RejectReason, detail: str) -> dict[str, Any]:
        return {"line": number, "error": str(reason), "detail": detail}

    if line is None:
        return failed(RejectReason.TOO_LARGE, f"over {LINE_BYTES} bytes")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as damage:
            return failed(RejectReason.INVALID_UTF8, f"byte {damage.start} of the line")
        return failed(RejectReason.MALFORMED_JSON, str(error))
    if not isinstance(found, dict):
        return failed(RejectReason.MALFORMED_JSON, f"a {type(found).__name__}, not an object")
    text = found.get("text")
    if text is None:
        return failed(RejectReason.MISSING_TEXT, "no 'text'")
    if not isinstance(text, str):
        return failed(RejectReason.TEXT_NOT_STRING, f"'text' is a {type(text).__name__}")
    return text
