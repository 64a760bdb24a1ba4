"""Kneser-Ney against plain dictionaries of the textbook's formulas, against sums to one, and backoff queries against KenLM."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from quality import ngrams, perplexity
from quality.perplexity import ORDER, PerplexityScorer, extended, extended_reference

V = 6
texts = st.lists(st.lists(st.integers(0, V - 1), max_size=14), min_size=1, max_size=8)


class Reference:
    """Interpolated modified Kneser-Ney over dictionaries of tuples, in the words of Chen & Goodman 1998."""

    def __init__(self, documents, vocab_size, min_count):
        self.begin, self.end, self.min_count = vocab_size, vocab_size + 1, min_count
        self.uniform = 1 / (vocab_size + 1)
        raw = {n: Counter() for n in range(1, ORDER + 1)}
        for document in documents:
            line = (self.begin, *document, self.end)
            for n in raw:
                raw[n].update(line[i : i + n] for i in range(len(line) - n + 1))
        del raw[1][(self.begin,)]
        self.raw = raw
        self.adjusted = {ORDER: dict(raw[ORDER])}
        for n in range(1, ORDER):
            left = defaultdict(set)
            for gram in raw[n + 1]:
                left[gram[1:]].add(gram[0])
            self.adjusted[n] = {g: (raw[n][g] if g[0] == self.begin else len(left[g])) for g in raw[n]}
        self.discounts = {n: self._discounts(Counter(self.adjusted[n].values())) for n in self.adjusted}
        self.following = {n: defaultdict(dict) for n in self.adjusted}
        for n, grams in self.adjusted.items():
            for gram, count in grams.items():
                self.following[n][gram[:-1]][gram[-1]] = count

    @staticmethod
    def _discounts(n):
        if min(n[1], n[2], n[3], n[4]) > 0:
            y = n[1] / (n[1] + 2 * n[2])
            found = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if all(0 <= d <= k for k, d in enumerate(found, 1)):
                return found
        return [0.5, 1.0, 1.5]

    def p(self, word, context):
        """p(word | context) by recursion to the shorter context."""
        lower = self.uniform if not context else self.p(word, context[1:])
        if not context:
            lower = self.uniform
        n = len(context) + 1
        following = self.following[n].get(tuple(context))
        if not following:
            return lower
        total = sum(following.values())
        own, mass = 0.0, 0.0
        for other, count in following.items():
            if self.raw[n][(*context, other)] < self.min_count and n >= 3:
                continue
            share = (count - self.discounts[n][min(count, 3) - 1]) / total
            mass += share
            own = share if other == word else own
        return own + (1 - mass) * lower

    def surprise(self, document):
        line = [self.begin, *document, self.end]
        return -sum(math.log(self.p(line[i], tuple(line[max(0, i - ORDER + 1) : i]))) for i in range(1, len(line)))


def _arrays(documents):
    return [np.array(document, np.int32) for document in documents]


def _scores(model, documents):
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    ids = np.array([token for document in documents for token in document], np.int32)
    return PerplexityScorer({"xx": model})(ids, offsets, ["xx"] * len(documents))


@given(texts, texts, st.sampled_from([1, 2, 3]))
@settings(max_examples=60)
def test_scores_are_those_of_the_textbook(training, judged, min_count):
    model = ngrams.fit(_arrays(training), V, min_count)
    reference = Reference(training, V, min_count)
    for document, score in zip(judged, _scores(model, judged), strict=True):
        if document:
            assert score == pytest.approx(math.exp(reference.surprise(document) / (len(document) + 1)), rel=1e-4)
        else:
            assert np.isnan(score)


@given(texts, st.lists(st.integers(0, V), max_size=ORDER - 1))
@settings(max_examples=30)
def test_every_distribution_sums_to_one(training, context):
    reference = Reference(training, V, 2)
    total = sum(reference.p(word, tuple(context)) for word in [*range(V), reference.end])
    assert total == pytest.approx(1)


@given(st.integers(0, 2**64 - 1), st.integers(0, 1 << 20))
def test_the_hash_is_its_plain_form(state, token):
    assert int(extended(np.uint64(state), token)) == extended_reference(state, token)


def test_discounts_by_hand():
    """n1..n4 = 4, 2, 1, 1: Y = 4/8, D1 = 1 - 2(.5)(2/4), D2 = 2 - 3(.5)(1/2), D3 = 3 - 4(.5)(1/1)."""
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4])
    assert ngrams._discounts(counts).tolist() == pytest.approx([0, 0.5, 1.25, 1.0])
    assert ngrams._discounts(counts[:-1]).tolist() == [0, 0.5, 1.0, 1.5]


def test_queries_are_kenlms_over_the_same_model(tmp_path):
    """The model written out as ARPA, in which KenLM looks up and backs off by code of its own."""
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed")
    random = np.random.default_rng(5)
    training = [random.zipf(1.5, 40).clip(1, 20).tolist() for _ in range(60)]
    judged = [random.zipf(1.5, 30).clip(1, 24).tolist() for _ in range(20)]
    (tmp_path / "model.arpa").write_text(_arpa(training, 25))
    theirs = kenlm.Model(str(tmp_path / "model.arpa"))
    ours = _scores(ngrams.fit(_arrays(training), 25, 1), judged)
    for document, score in zip(judged, ours, strict=True):
        assert score == pytest.approx(theirs.perplexity(" ".join(map(str, document))), rel=1e-4)


def _arpa(training, vocab_size):
    reference = Reference(training, vocab_size, 1)
    names = {reference.begin: "<s>", reference.end: "</s>"}
    lines = {n: [] for n in range(1, ORDER + 1)}

    def backoff(gram):
        following = reference.following[len(gram) + 1].get(gram) if len(gram) < ORDER else None
        if not following:
            return 0.0
        discounts, total = reference.discounts[len(gram) + 1], sum(following.values())
        return math.log10(sum(discounts[min(count, 3) - 1] for count in following.values()) / total)

    for n, grams in reference.adjusted.items():
        for gram in sorted({*grams, *({(word,) for word in range(vocab_size)} if n == 1 else ())}):
            log_p = math.log10(reference.p(gram[-1], gram[:-1]))
            lines[n].append(f"{log_p}\t{' '.join(names.get(t, str(t)) for t in gram)}\t{backoff(gram)}")
    lines[1] += [f"-99\t<s>\t{backoff((reference.begin,))}", f"{math.log10(reference.uniform)}\t<unk>\t0"]
    head = "\n".join(f"ngram {n}={len(found)}" for n, found in lines.items())
    body = "".join(f"\\{n}-grams:\n" + "\n".join(found) + "\n\n" for n, found in lines.items())
    return f"\\data\\\n{head}\n\n{body}\\end\\\n"


def test_a_language_without_a_model_has_no_perplexity():
    model = ngrams.fit(_arrays([[1, 2, 3]]), V)
    found = PerplexityScorer({"en": model})(np.array([1, 2]), np.array([0, 1, 2, 2]), ["en", "de", None])
    assert np.isnan(found).tolist() == [False, True, True]


def test_saved_models_come_back_bit_for_bit_and_in_one_form():
    one, two = (ngrams.with_bounds(ngrams.fit(_arrays([text]), V), _arrays([text])) for text in ([1, 2, 3], [3, 3, 4, 4]))
    data = perplexity.save({"en": one, "bg": two})
    assert data == perplexity.save({"bg": two, "en": one})
    back = perplexity.load(data, "x")
    assert (back["en"].keys == one.keys).all()
    assert (back["bg"].values == two.values).all()
    assert (back["en"].head, back["en"].begin) == (one.head, V)
    for broken in (b"", data[:-1], data[:50], data.replace(b'"format\\": 1', b'"format\\": 7')):
        with pytest.raises(UserError, match=r"^x: "):
            perplexity.load(broken, "x")


def test_buckets_are_thirds_of_what_was_judged():
    random = np.random.default_rng(1)
    documents = [random.integers(0, V, 12) for _ in range(300)]
    model = ngrams.with_bounds(ngrams.fit(documents[:50], V), documents)
    buckets = Counter(perplexity.bucket(score, model) for score in _scores(model, documents))
    assert buckets == {"head": 100, "middle": 100, "tail": 100}
