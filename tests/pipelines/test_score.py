"""score against what a run stored of its own documents, and its lines against the JSON lines reader."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import score
from pipelines.errors import UserError
from pipelines.records import Input, Limits, Reject
from pipelines.score import TextScorer, score_lines
from pipelines.sources import SourceOptions
from pipelines.sources.jsonl import read
from tests.runs import run_build

KEYS = ["language", "language_score", "quality", "signals", "verdict", "keep_probability"]


def _rows(run, table, columns=None):
    return [row for path in sorted((run / table).rglob("*.parquet")) for row in pq.read_table(path, columns=columns).to_pylist()]


def _scored(lines, scorer, explain=False):
    return list(score_lines(io.BytesIO(lines), scorer, explain))


@pytest.fixture(scope="module")
def scorer(built):
    return TextScorer(str(built), "filtered")


def test_scores_of_a_runs_documents_are_those_that_it_stored(built, scorer):
    """wiki keeps all its paragraphs, so its texts are judged as they stand."""
    documents, stored = _rows(built, "documents/wiki", ["text"]), _rows(built, "signals/wiki")
    decisions = _rows(built, "decisions/filtered/wiki", ["verdict"])
    found = scorer([row["text"] for row in documents])
    assert len(found) == 75
    for got, row, decided in zip(found, stored, decisions, strict=True):
        assert list(got) == KEYS
        assert got["language"] == row["language"]
        for name in ("language_score", "quality"):
            assert np.float32(got[name]) == np.float32(row[name])
        assert {name: np.float32(value) for name, value in got["signals"].items()} == {
            name: np.float32(value)
            for name, value in row.items()
            if value is not None and name not in ("language", "language_score", "quality", "token_ids")
        }
        assert 0 < got["keep_probability"] <= 1
        assert decided["verdict"] == "keep"  # a curated source is never filtered


def test_keep_probabilities_average_to_the_solved_rate(built, scorer):
    """Over the documents that reached the draw, weighted by tokens: what resolved.json expects."""
    solved = json.loads((built / "decisions/filtered/resolved.json").read_text())["default"]
    signals = _rows(built, "signals/web", ["quality", "n_tokens"])
    decisions = _rows(built, "decisions/filtered/web", ["stage"])
    reached = [s for s, d in zip(signals, decisions, strict=True) if d["stage"] in (None, "quality", "paragraphs")]
    quality = np.array([row["quality"] for row in reached], np.float64)
    tokens = np.array([row["n_tokens"] for row in reached])
    chance = scorer._solution.probability(np.rint(quality * 1e4) / 1e4)
    assert tokens.sum() == solved["tokens"]
    assert (chance * tokens).sum() / tokens.sum() == pytest.approx(solved["expected_keep_rate"], abs=1e-9)


def test_without_a_run_quality_and_tokens_are_not_made_up():
    (found,) = _scored(b'{"text": "The river rises in the mountains and flows to the sea."}\n', TextScorer(None, None))
    assert list(found) == KEYS
    assert (found["language"], found["quality"], found["verdict"], found["keep_probability"]) == ("en", None, None, None)
    assert found["signals"]["words"] == 11
    assert "n_tokens" not in found["signals"]


BAD = [
    (b"not json", "malformed_json"),
    (b"[1]", "malformed_json"),
    (b'{"text": NaN}', "malformed_json"),
    (b'{"text": "\\ud800"}', "malformed_json"),
    (b"[" * 2000, "malformed_json"),
    (b'{"text": 7}', "text_not_string"),
    (b'{"text": null}', "missing_text"),
    (b"{}", "missing_text"),
    (b'{"text": "\xff"}', "invalid_utf8"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_an_error_in_its_place_with_the_readers_reason(line, reason, scorer, tmp_path):
    """The reason is the one that a build gives for the same line."""
    good = b'{"text": "One."}\n'
    found = _scored(good + b"\n" + line + b"\n" + good, scorer)
    assert len(found) == 3
    assert [list(one) for one in (found[0], found[2])] == [KEYS, KEYS]
    assert {key: found[1][key] for key in ("line", "error")} == {"line": 3, "error": reason}
    assert found[1]["detail"]
    path = tmp_path / "x.jsonl"
    path.write_bytes(line + b"\n")
    (rejected,) = read(Input("x.jsonl", str(path), 1, ""), SourceOptions(), Limits(), None)
    assert isinstance(rejected, Reject)
    assert str(rejected.reason) == reason


def test_a_line_over_the_limit_is_an_error_and_the_next_is_judged(monkeypatch, scorer):
    monkeypatch.setattr(score, "LINE_BYTES", 100)
    found = _scored(b'{"text": "' + b"x" * 1000 + b'"}\n{"text": "Short."}\n', scorer)
    assert found[0] == {"line": 1, "error": "too_large", "detail": "over 100 bytes"}
    assert found[1]["signals"]["words"] == 1
    assert _scored(b"x" * 1000, scorer) == found[:1]  # also where the stream ends in it


@pytest.mark.parametrize("size", [0, 1, 499, 500, 501])
def test_every_line_has_its_answer_in_order(size, scorer):
    lines = [json.dumps({"text": "word " * (n % 7 + 1)}) if n % 5 else "bad" for n in range(size)]
    found = _scored("\n".join(lines).encode(), scorer)
    assert len(found) == size
    for n, one in enumerate(found):
        assert one["signals"]["words"] == n % 7 + 1 if n % 5 else one["line"] == n + 1


def test_a_byte_order_mark_is_skipped(scorer):
    (found,) = _scored(b'\xef\xbb\xbf{"text": "One."}\n', scorer)
    assert "error" not in found


def test_contributions_sum_to_the_margin_that_was_scored(scorer):
    """With few enough features for all to be shown: sum of contributions + bias is the classifier's margin."""
    (found,) = scorer(["history click"], explain=True)
    classifier = scorer._models.quality
    margin = sum(amount for _, amount in found["contributions"]) + classifier.bias
    assert float(classifier.calibrated(np.array([margin]))[0]) == pytest.approx(found["quality"], abs=2e-4)
    assert {word for word, _ in found["contributions"]} <= {"history", "click", "history click"}
    amounts = dict(found["contributions"])
    assert amounts["history"] > 0 > amounts["click"]


def test_verdicts_are_the_first_reason_of_the_default_policy(scorer):
    found = scorer(["Kurz.", "too short for the rules"])
    assert found[0]["verdict"] == "language"
    assert found[1]["verdict"] in ("language_score", "gopher_words")


def test_a_cut_gives_a_verdict_by_its_threshold(built, inputs, tmp_path):
    import shutil

    shutil.copytree(built, tmp_path / "run")
    changes = ["variants.filtered.default.rules=none", "variants.filtered.default.languages=any"]
    run_build(inputs, tmp_path / "run", [*changes, "variants.filtered.default.quality={draw: cut, threshold: 0.5}"])
    scorer = TextScorer(str(tmp_path / "run"), "filtered")
    texts = [row["text"] for table in ("documents/web", "documents/wiki") for row in _rows(built, table, ["text"])[:40]]
    found = scorer(texts)
    assert {one["verdict"] for one in found} == {"keep", "quality_cut"}
    for one in found:
        assert (one["verdict"] == "keep") == (one["quality"] >= 0.5)
        assert one["keep_probability"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "filtered"), "--variant needs --model DIR"),
        (("BUILT", "nobody"), "no variant 'nobody'; it has unfiltered, filtered"),
        (("EMPTY", None), "no complete run"),
    ],
)
def test_what_the_user_can_mend_is_said_in_one_line(arguments, message, built, tmp_path):
    folder = {"BUILT": str(built), "EMPTY": str(tmp_path), None: None}[arguments[0]]
    with pytest.raises(UserError, match=message) as caught:
        TextScorer(folder, arguments[1])
    assert "\n" not in str(caught.value)
