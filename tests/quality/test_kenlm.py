"""The estimate of `quality.ngrams` against KenLM's own estimator: probability and backoff of every n-gram that lmplz printed.

kenlm/ beside this file holds what lmplz came to, built from github.com/kpu/kenlm at commit 4cb443e60b7bf2c0ddf3c745378f76cb59e254e5
(2025-03-30; the Python package has only queries). It was run with `-S 64M -T FOLDER/` and

    lmplz -o 5 --text text.txt --arpa order5.arpa
    lmplz -o 3 --text text.txt --arpa order3.arpa
    lmplz -o 5 --prune 0 0 1 --text text.txt --arpa pruned.arpa
    lmplz -o 5 --discount_fallback --text fallback.txt --arpa fallback.arpa

and nothing of what it wrote was changed, but for gzip. text.txt is 153 lines drawn from a grammar of 49 words, of a size where all
orders' discounts are defined (lmplz without --discount_fallback refuses others); one is empty, one a single word. In fallback.txt
none is. `--prune 0 0 1` is `min_count=2`, the default: what was seen once is left out from three tokens on.

A line of the text is a document. Held alike to 5e-7 in log10, absolute (it is 2e-7): KenLM computes and prints in float32, and the
table is float32. Where the two differ by definition:

* `<unk>`: KenLM gives it a place in the vocabulary, which holds the words of the text and `</s>`. Here a vocabulary is the
  tokenizer's, and what the text lacks of it shares the same mass: with one such id the two are the same.
* `<s>`: KenLM lists it with a probability of 1 (log10 0), so that a query may begin by scoring it. Here it is a context and has no
  probability; its backoff is compared.
* Nothing follows `</s>`: KenLM prints a backoff of 0 for what ends with it; the table has no entry.
* A context whose every continuation is pruned has an entry of 0 here and none there.
* Where counts of 1, 2 and 3 were seen and none of 4, KenLM takes 3 for the third discount, which leaves an n-gram seen three times
  no probability of its own; here the fall-back is taken (`test_discounts_by_hand`). No order of these texts is so.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from quality import ngrams
from quality.perplexity import PerplexityScorer, backoff_keys, extended_reference

GOLDEN = Path(__file__).parent / "kenlm"
LOG10_E = math.log10(math.e)
CLOSE = 5e-7
ORDERS = {"order5": 5, "order3": 3, "pruned": 5, "fallback": 5}
SIZES = {
    "order5": (52, 247, 637, 882, 929), "order3": (52, 247, 637), "pruned": (52, 247, 230, 166, 71), "fallback": (7, 9, 6, 4, 2),
}  # fmt: skip


def sentences(name):
    """The text of a model: lists of words."""
    lines = (GOLDEN / ("fallback.txt" if name == "fallback" else "text.txt")).read_text().splitlines()
    return [line.split() for line in lines]


def printed(name):
    """What lmplz wrote."""
    path = GOLDEN / f"{name}.arpa"
    return path.read_text() if path.exists() else gzip.decompress(path.with_suffix(".arpa.gz").read_bytes()).decode()


def arpa(name):
    """{n-gram of words: (log10 probability, log10 backoff)} as lmplz printed it."""
    found = {}
    for line in printed(name).splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            found[tuple(fields[1].split())] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
    assert tuple(sum(len(gram) == n for gram in found) for n in range(1, ORDERS[name] + 1)) == SIZES[name]
    return found


def fitted(name, monkeypatch):
    """(the model of the same text, the id of each word)"""
    monkeypatch.setattr(ngrams, "ORDER", ORDERS[name])
    lines = sentences(name)
    ids = {word: number for number, word in enumerate(sorted({word for line in lines for word in line}))}
    ids |= {"<unk>": len(ids), "<s>": len(ids) + 1, "</s>": len(ids) + 2}
    documents = [np.array([ids[word] for word in line], np.int64) for line in lines]
    return ngrams.fit(documents, ids["<s>"], 2 if name == "pruned" else 1), ids


def hashed(gram, ids):
    state = 0
    for word in gram:
        state = extended_reference(state, ids[word])
    return state


@pytest.mark.parametrize("name", ORDERS)
def test_every_ngram_has_the_probability_and_backoff_that_lmplz_printed(name, monkeypatch):
    theirs = arpa(name)
    model, ids = fitted(name, monkeypatch)
    ours = {int(key): float(value) * LOG10_E for key, value in zip(model.keys, model.values, strict=True) if key}
    assert model.unseen * LOG10_E == pytest.approx(theirs.pop(("<unk>",))[0], abs=CLOSE)
    contexts = {gram[:-1] for gram in theirs if len(gram) > 1}
    apart = {}
    for gram, (probability, backoff) in theirs.items():
        key = hashed(gram, ids)
        if gram != ("<s>",):
            apart[gram, "p"] = ours.pop(key, math.inf) - probability
        if gram in contexts:
            apart[gram, "backoff"] = ours.pop(int(backoff_keys(np.uint64(key))), math.inf) - backoff
        else:
            assert backoff == 0
    assert len(apart) == sum(SIZES[name]) - 2 + len(contexts)
    assert {where: by for where, by in apart.items() if abs(by) > CLOSE} == {}
    # Nothing else is in the table, but for contexts that pruning has left without a continuation.
    assert set(ours.values()) <= {0.0}
    assert bool(ours) == (name == "pruned")


@pytest.mark.parametrize("name", ["order5", "pruned", "fallback"])
def test_kenlm_gives_texts_the_perplexity_that_the_fitted_model_gives_them(name, monkeypatch, tmp_path):
    """KenLM's queries over KenLM's estimate beside ours over ours: lines of the text, turned round, with an unknown word."""
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed")
    path = tmp_path / "model.arpa"
    path.write_text(printed(name))
    theirs = kenlm.Model(str(path))
    model, ids = fitted(name, monkeypatch)
    lines = [line for line in sentences(name) if line]
    lines += [line[::-1] for line in lines] + [[*line[:2], "<unk>", *line[2:]] for line in lines]
    offsets = np.cumsum([0, *map(len, lines)]).astype(np.int64)
    words = np.array([ids[word] for line in lines for word in line])
    ours = PerplexityScorer({"xx": model})(words, offsets, ["xx"] * len(lines))
    for line, score in zip(lines, ours, strict=True):
        assert score == pytest.approx(theirs.perplexity(" ".join(line).replace("<unk>", "unheard-of")), rel=1e-5)
