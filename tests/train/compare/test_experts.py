"""train.compare.experts: against a router set by hand, a call a document, the formula in loops, and all relabellings."""

import dataclasses
import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.models import DENSE, SPARSE, moe
from tests.train.test_evaluate import BYTES, TEXTS, one_line
from train.compare import experts
from train.evaluate import Document
from train.model import build
from train.moe import RoutingOptions

RECORD = RoutingOptions(record_choices=True)


def document(text, domain="web", doc="d", cluster=None):
    return Document(domain, doc, doc if cluster is None else cluster, text, BYTES(text))


def made(config, context=32, seed=0):
    return build(dataclasses.replace(config, vocab_size=257, context=context), seed)


def by_letter(context=8):
    """A model of two sparse layers that sends byte b to experts b % 4 and (b + 1) % 4, the end of document to 3 and 2.

    Nothing but embeddings runs in its residual stream, and a token's embedding is its routers' logits (up to the norm).
    """
    model = made(moe(every=1), context)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.zero_()
            block.ffn.experts.w_out_EDF.zero_()
            block.ffn.router_ED.copy_(torch.eye(4, 16))
        model.embedding.weight.zero_()
        ids = {byte: int(BYTES(chr(byte))[0]) for byte in range(128)}
        for byte, number in ids.items():
            model.embedding.weight[number, byte % 4], model.embedding.weight[number, (byte + 1) % 4] = 2.0, 1.0
        model.embedding.weight[256, 3], model.embedding.weight[256, 2] = 2.0, 1.0
    return model


def assignments(text):
    """What `by_letter` does with a text, by hand."""
    counts = Counter(expert for byte in text.encode() for expert in (byte % 4, (byte + 1) % 4))
    return [[counts[expert] for expert in range(4)]] * 2


# -- counts -------------------------------------------------------------------------------------------------------------------


def test_a_router_set_by_hand_is_counted_exactly():
    """Shorter than, as long as and many times the context of 8; every token once, the end of document never."""
    texts = ["a", "abcdefg", "abcdefgh", "ddddddddd", "the quick brown fox jumps over the lazy dog " * 3]
    found = experts.document_counts(by_letter(), BYTES, [document(text) for text in texts])
    assert found.dtype == np.int64
    assert found.tolist() == [assignments(text) for text in texts]


@pytest.mark.parametrize("config", [SPARSE, moe(top_k=1, every=1, experts=8), moe(top_k=3, every=1, group=4)])
def test_counts_are_those_of_a_call_a_document(config):
    """The reference reads each document alone and whole; batches of any size give the same."""
    model = made(config, context=128)
    documents = [document(text) for text in TEXTS]
    found = experts.document_counts(model, BYTES, documents)
    for one, counts_LE in zip(documents, found, strict=True):
        with torch.no_grad():
            choices_LBTK = model(torch.tensor([[256, *one.ids.tolist()]]), routing=RECORD).routing.choices_BTK
        for choices_TK, counts_E in zip(choices_LBTK[:, 0, 1:].tolist(), counts_LE.tolist(), strict=True):
            tally = Counter(expert for choices_K in choices_TK for expert in choices_K)
            assert counts_E == [tally[expert] for expert in range(config.moe.experts)]
    assert (found.sum(2) == [[len(one.ids) * config.moe.top_k] * model.config.n_sparse for one in documents]).all()
    assert (experts.document_counts(model, BYTES, documents, tokens_at_once=1) == found).all()
    assert (experts.document_counts(model, BYTES, documents[::-1]) == found[::-1]).all()


def test_jitter_capacity_and_dropout_play_no_part():
    noisy = moe(jitter=0.5, expert_dropout=0.5, capacity_train=0.5, capacity_eval=0.5)
    documents = [document(text) for text in TEXTS]
    wanted = experts.document_counts(made(SPARSE), BYTES, documents)
    assert (experts.document_counts(made(noisy).train(), BYTES, documents) == wanted).all()


def test_shares_by_hand():
    """aaaa and bb are one domain: 6 tokens, 12 assignments, a to experts 1 and 2, b to 2 and 3."""
    documents = [document("aaaa", "web"), document("dd", "books"), document("bb", "web")]
    found = experts.routing_shares(by_letter(), BYTES, documents)
    assert list(found) == ["books", "web"]
    assert found == {"books": [[0.5, 0.5, 0, 0]] * 2, "web": [[0, 4 / 12, 6 / 12, 2 / 12]] * 2}


# -- information --------------------------------------------------------------------------------------------------------------


def information_plainly(counts_DE):
    """The formula in loops, from exact probabilities."""
    rows = [[Fraction(n, sum(row)) for n in row] for row in counts_DE]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return math.fsum(float(p) / len(rows) * math.log2(p / q) for row in rows for p, q in zip(row, mean, strict=True) if p)


def entropy(p_E):
    return -math.fsum(p * math.log2(p) for p in p_E if p)


TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width).filter(any), min_size=1, max_size=5)
)


@given(TABLES)
def test_information_is_the_formula_and_the_jensen_shannon_divergence(counts_DE):
    got = experts.mutual_information(np.array(counts_DE))
    rows = [[n / sum(row) for n in row] for row in counts_DE]
    divergence = entropy(np.mean(rows, 0)) - math.fsum(map(entropy, rows)) / len(rows)
    assert got == pytest.approx(information_plainly(counts_DE), abs=1e-12) == pytest.approx(divergence, abs=1e-12)
    assert 0 <= got <= math.log2(min(len(rows), len(rows[0]))) + 1e-12


def test_information_by_hand():
    assert experts.mutual_information(np.array([[9, 0], [0, 1]])) == 1.0  # sizes of domains do not weigh
    assert experts.mutual_information(np.eye(8)) == 3.0
    assert experts.mutual_information(np.array([[1, 3], [100, 300]])) == 0.0
    wanted = (math.log2(2) / 2 + math.log2(2 / 3) / 2) / 2 + math.log2(4 / 3) / 2  # shares .5 .5 and 0 1, mean .25 .75
    assert experts.mutual_information(np.array([[1, 1], [0, 1]])) == pytest.approx(wanted)


# -- against shuffled labels --------------------------------------------------------------------------------------------------

COUNTS = np.array([[[9, 1]], [[8, 2]], [[5, 6]], [[7, 4]], [[2, 8]], [[1, 3]]])
PLACES = range(len(COUNTS))


def labelled(first, clusters=None):
    """Six documents, those of `first` in domain a, the others in b."""
    return [document("x", "a" if n in first else "b", f"d{n}", clusters and clusters[n]) for n in PLACES]


def enumerated(first):
    """(information of the labels, of every one of the 20 relabellings), by plain loops."""

    def bits(chosen):
        sides = [[n for n in PLACES if (n in chosen) is side] for side in (True, False)]
        return information_plainly([COUNTS[side].sum((0, 1)).tolist() for side in sides])

    return bits(first), [bits(chosen) for chosen in itertools.combinations(PLACES, 3)]


@pytest.mark.parametrize("first", [(0, 1, 3), (0, 2, 4), (1, 4, 5)])
def test_p_is_that_of_all_relabellings(first):
    """4,000 permutations against the 20 that there are: the share within four deviations, mean and 95 % as enumerated."""
    bits, every = enumerated(first)
    found = experts.against_shuffled(COUNTS, labelled(first), permutations=4000)
    (layer,) = found["layers"]
    assert layer == found["mean"]
    assert layer["bits"] == pytest.approx(bits, abs=1e-12)
    p = sum(one >= bits - 1e-12 for one in every) / len(every)
    assert abs(layer["p"] - p) < 4 * math.sqrt(p * (1 - p) / 4000) + 1 / 4000
    assert layer["shuffled_mean"] == pytest.approx(np.mean(every), abs=4 * np.std(every) / math.sqrt(4000))
    assert layer["shuffled_95"] in [pytest.approx(one) for one in every]
    assert (found["domains"], found["units"], found["permutations"]) == (["a", "b"], 6, 4000)


def test_p_is_uniform_where_domains_mean_nothing():
    """Of all 20 labellings, each as likely: p at most x in a share x of them, in tenths (labels change sides in pairs)."""
    p = [experts.against_shuffled(COUNTS, labelled(first))["mean"]["p"] for first in itertools.combinations(PLACES, 3)]
    assert abs(np.mean(p) - 0.55) < 0.04  # ten values .1, .2 ... 1, each twice
    for share in (0.1, 0.3, 0.5, 0.8):
        assert abs(sum(one <= share + 0.05 for one in p) / 20 - share) <= 0.1


def test_permutations_are_all_alike_likely():
    """The six orders of three labels in 6,000 draws: each within four deviations of 1,000."""
    labels = [("a", "x"), ("a", "y"), ("b", "z")]
    tally = Counter(tuple(experts._permutation(labels, 0, number)) for number in range(6000))
    assert len(tally) == 6
    assert all(abs(count - 1000) < 4 * math.sqrt(1000 * 5 / 6) for count in tally.values())


def test_neither_order_nor_anything_but_the_seed_changes_a_figure():
    documents = labelled((0, 1, 2))
    found = experts.against_shuffled(COUNTS, documents)
    assert found["permutations"] == 200
    turned = [3, 1, 5, 0, 4, 2]
    assert experts.against_shuffled(COUNTS[turned], [documents[n] for n in turned]) == found
    assert experts.against_shuffled(COUNTS, documents, seed=1) != found


def test_clusters_move_as_one():
    """Two threads of 20 like posts each: as posts their domains are told apart beyond doubt, as threads there is nothing to say."""
    counts_NLE = np.array([[[3, 1]]] * 20 + [[[1, 3]]] * 20)
    domains = ["a"] * 20 + ["b"] * 20
    posts = [document("x", domain, f"d{n}") for n, domain in enumerate(domains)]
    threads = [dataclasses.replace(post, cluster=post.domain) for post in posts]
    assert experts.against_shuffled(counts_NLE, posts)["mean"]["p"] == 1 / 201
    found = experts.against_shuffled(counts_NLE, threads)
    assert (found["units"], found["mean"]["p"]) == (2, 1.0)


def test_a_model_whose_experts_know_letters_tells_domains_of_letters():
    """End to end: domains of other letters share no expert (one bit in every layer); domains of the same letters do."""
    apart = [document("aaaa" * n, "a", f"a{n}") for n in range(1, 9)] + [document("cccc" * n, "c", f"c{n}") for n in range(1, 9)]
    found = experts.against_shuffled(experts.document_counts(by_letter(), BYTES, apart), apart)
    assert [layer["bits"] for layer in found["layers"]] == [1.0, 1.0]
    assert found["mean"]["p"] == 1 / 201
    alike = [dataclasses.replace(one, domain="ac"[n % 2]) for n, one in enumerate(apart)]
    found = experts.against_shuffled(experts.document_counts(by_letter(), BYTES, alike), alike)
    assert found["mean"]["p"] > 0.2


# -- faults -------------------------------------------------------------------------------------------------------------------


def test_errors_of_one_line():
    dense, documents = made(DENSE), labelled((0, 1, 2))
    one_line(lambda: experts.document_counts(dense, BYTES, documents), "the model is dense")
    one_line(lambda: experts.document_counts(by_letter(), BYTES, []), "no documents")
    one_line(lambda: experts.document_counts(build(SPARSE, 0), BYTES, documents), "257 ids, but the model has 61")
    one_line(lambda: experts.against_shuffled(COUNTS, documents, permutations=0), "0 permutations")
    one_line(lambda: experts.against_shuffled(COUNTS, labelled(())), "1 domains", "at least two")
    hollow = COUNTS * (np.arange(6) > 2)[:, None, None]
    one_line(lambda: experts.against_shuffled(hollow, documents), "domain a", "has a token")
    one_line(lambda: experts.shares(hollow, documents), "domain a", "has a token")


def test_a_document_without_tokens_is_no_unit():
    counts_NLE = np.concatenate([COUNTS, np.zeros((1, 1, 2), np.int64)])
    documents = [*labelled((0, 1, 2)), document("", "b", "empty")]
    assert experts.document_counts(by_letter(), BYTES, documents[-1:]).tolist() == [[[0] * 4] * 2]
    assert experts.against_shuffled(counts_NLE, documents) == experts.against_shuffled(COUNTS, documents[:-1])
