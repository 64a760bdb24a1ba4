"""score: texts in, judgements out, with the models and the thresholds of a run.

One JSON object a line in, with `text`; one a line out, in order. A line that is no such object gets `error` and the reason, so
that outputs stay aligned with inputs. With a Pareto draw the verdict says whether the text reaches the draw, and
`keep_probability` what the draw would do: a text outside a corpus has no doc_id, hence no draw of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.judge import Judgement, ResolvedDraw, judge_text
from pipelines.models import Models
from pipelines.recipe import RECIPE, Draw, Policy, parse
from pipelines.schema import KEEP, Reason, RejectReason
from pipelines.select import DEFAULT_GROUP, solution_path
from pipelines.store import Store

_BATCH = 500


def score_lines(lines: Iterable[bytes], folder: str | None, variant: str | None) -> Iterator[str]:
    """A JSON text for every line. `folder`: a run, else language and signals only; `variant`: also its verdict."""
    from pipelines.annotate import Annotator
    from pipelines.normalise import normalise

    loaded, policy, solution = _loaded(folder, variant)
    annotator = Annotator(loaded, None)
    for batch in _batched(lines):
        texts = [text for text, _ in batch if text is not None]
        signals = annotator(normalise(texts, "prose")) if texts else None
        judged = iter(_judged(signals, policy, solution) if signals is not None else [])
        for text, reason in batch:
            found = next(judged) if text is not None else {"error": reason}
            yield orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _loaded(folder: str | None, variant: str | None) -> tuple[Models, Policy | None, ResolvedDraw | None]:
    from pipelines import bpe, models, packages
    from quality import language

    if folder is None:
        if variant is not None:
            raise UserError("--variant needs --model DIR, the run whose variant it is")
        path = packages.language_model()
        tokenizer = bpe.bytes_only()
        return Models(language.parse(path.read_bytes(), str(path)), tokenizer, None), None, None
    store = Store(folder)
    loaded = models.load(store)
    if variant is None:
        return loaded, None, None
    recipe = parse(store.read(RECIPE).decode(), store.url(RECIPE))
    if variant not in recipe.variants:
        raise UserError(f"{folder}: no variant {variant!r}; it has {', '.join(recipe.variants)}")
    policy = recipe.variants[variant].default
    solution = None
    if isinstance(policy.quality, Draw):
        solved = store.read_json(solution_path(variant))[DEFAULT_GROUP]
        solution = ResolvedDraw(policy.quality, solved["shift"], solved["solved_threshold"])
    return loaded, policy, solution


def _batched(lines: Iterable[bytes]) -> Iterator[list[tuple[str | None, str]]]:
    """Batches of (text, "") or (None, reason)."""
    batch: list[tuple[str | None, str]] = []
    for line in lines:
        batch.append(_text_of(line))
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _text_of(line: bytes) -> tuple[str | None, str]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None, str(RejectReason.MALFORMED_JSON)
    if not isinstance(found, dict) or found.get("text") is None:
        return None, str(RejectReason.MISSING_TEXT)
    if not isinstance(found["text"], str):
        return None, str(RejectReason.TEXT_NOT_STRING)
    return found["text"], ""


def _judged(signals: pa.RecordBatch, policy: Policy | None, solution: ResolvedDraw | None) -> list[dict[str, Any]]:
    rows = signals.drop_columns(["token_ids"]).to_pylist()
    found = [
        {
            "language": row.pop("language"),
            "language_score": row.pop("language_score"),
            "quality": row.pop("quality"),
            "signals": {key: value for key, value in row.items() if value is not None},
        }
        for row in rows
    ]
    if policy is not None:
        judgement = Judgement(len(rows))
        judge_text(judgement, pa.Table.from_batches([signals]), policy, np.zeros(len(rows), bool))
        quality = np.rint(np.asarray(signals.column("quality").to_numpy(zero_copy_only=False), np.float64) * 1e4) / 1e4
        if solution is not None and solution.draw.draw == "cut":
            judgement.drop(quality < solution.threshold, Reason.QUALITY_CUT, quality, solution.threshold)
        for i, row in enumerate(found):
            row["verdict"] = KEEP if judgement.standing[i] else judgement.reasons[judgement.code[i]]
            if solution is not None and solution.draw.draw == "pareto":
                row["keep_probability"] = round(float(solution.probability(quality[i : i + 1])[0]), 6)
    return found
