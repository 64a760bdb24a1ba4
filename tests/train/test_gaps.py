"""The comparison's statistics, against scipy (t, paired t-test, binomial), brute force, a cluster bootstrap, and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.errors import UserError
from train.gaps import MOST_SEEDS, estimate, sign_flip_p, student_quantile, student_tail, tabulate
from train.verdict import LEVEL, MARGIN, MIN_SEEDS, Verdict, by_domain, contrast, decide, equivalence_p

ARMS = ("filtered", "unfiltered")


def flat(rates, documents=6):
    """Two arms whose gap is rates[s] on every document: the documents add no variance."""
    bytes_N = np.arange(1, documents + 1) * 128
    second = np.full((len(rates), documents), 3.0) * bytes_N
    first = second - np.asarray(rates)[:, None] * bytes_N
    return tabulate(first, second, bytes_N, [str(i) for i in range(documents)], ["books"] * documents)


def drawn(rng, seeds, clusters, seed_sd, cluster_sd, both_sd, gap=0.0, domains=1, uneven=0.0):
    """A comparison with a known true gap (bits per byte) and random seeds, clusters, seeds on clusters, and documents."""
    count = clusters * domains
    size = np.maximum(1, rng.poisson(3 * np.exp(uneven * rng.standard_normal(count) - uneven**2 / 2)))
    cluster_N = np.repeat(np.arange(count), size)
    bytes_N = rng.integers(200, 2000, len(cluster_N))
    rate_SN = (
        gap
        + seed_sd * rng.standard_normal((seeds, 1))
        + cluster_sd * rng.standard_normal(count)[cluster_N]
        + both_sd * (rng.standard_normal((seeds, count))[:, cluster_N] + rng.standard_normal((seeds, len(cluster_N))))
    )
    second = np.full(rate_SN.shape, 3.0) * bytes_N
    return tabulate(second - rate_SN * bytes_N, second, bytes_N, cluster_N.astype(str), (cluster_N // clusters).astype(str))


def at_most(rate, trials):
    """More events than this have a probability below .001 at the nominal rate."""
    return int(stats.binom.ppf(0.999, trials, rate))


# -- Student's t ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4, 5.7, 7, 30.3, 1000, 1e5])
def test_t_is_that_of_scipy(freedom):
    for t in [0, 1e-3, 0.5, 1, 2.776, 12, 1000, -1, -40]:
        assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)
    for p in [1e-6, 0.025, 0.4, 0.5, 0.6, 0.95, 0.975, 0.9995, 1 - 1e-7]:
        assert student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-8, abs=1e-12)


@given(st.floats(0.001, 0.999), st.floats(1, 1e4))
def test_quantile_inverts_the_tail(probability, freedom):
    assert 1 - student_tail(student_quantile(probability, freedom), freedom) == pytest.approx(probability, rel=1e-9)


# -- Exact sign flips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gaps", "p"),
    [([1.0], 1), ([1, 2, 3], 2 / 8), ([1, -1], 1), ([1, 1, -0.5], 4 / 8), ([0.1] * 8, 2 / 256), ([0, 0], 1), ([-0.3] * 5, 2 / 32)],
)
def test_sign_flips_by_hand(gaps, p):
    assert sign_flip_p(gaps) == p


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=11))
def test_sign_flips_are_all_that_there_are(gaps):
    seen = abs(sum(gaps))
    far = sum(
        abs(sum(s * g for s, g in zip(signs, gaps, strict=True))) >= seen for signs in itertools.product((1, -1), repeat=len(gaps))
    )
    # Tenths, so that sums which are equal on paper differ by rounding.
    assert sign_flip_p([g / 10 for g in gaps]) == far / 2 ** len(gaps)


def test_sign_flips_of_the_most_seeds():
    assert sign_flip_p([0.1] * MOST_SEEDS) == 2 / 2**MOST_SEEDS
    with pytest.raises(UserError, match="41 paired seeds"):
        sign_flip_p([0.1] * (MOST_SEEDS + 1))


# -- Estimate and interval --------------------------------------------------------------------------------------------------


def test_two_seeds_and_two_documents_by_hand():
    second = np.array([[40.0, 120.0], [40.0, 120.0]])
    cells = tabulate(second - [[4, 8], [2, 2]], second, np.array([10, 30]), ["a", "b"], ["books", "books"])
    got = estimate(cells, ["books"])
    assert got.seed_gaps == pytest.approx((12 / 40, 4 / 40))
    assert got.gap == pytest.approx(0.2)
    assert got.seed_variance == pytest.approx(0.02 / 2)
    # Without a the gap is 5/30, without b 3/10: moved by 1/30 and 1/10.
    assert got.document_variance == pytest.approx((1 / 30**2 + 1 / 10**2) / 2)
    assert got.shared_variance == pytest.approx(0, abs=1e-30)
    freedom = (0.01 + 1 / 180) ** 2 / (0.01**2 + (1 / 180) ** 2)
    assert got.freedom == pytest.approx(freedom)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(0.01 + 1 / 180)
    assert got.interval(0.95) == pytest.approx((0.2 - half, 0.2 + half))


@pytest.mark.parametrize("rates", [[0.13, 0.16, 0.11, 0.19, 0.15], [0.01, -0.02, 0.03, 0.0, 0.015, -0.01, 0.02, 0.04]])
def test_without_document_variance_it_is_the_paired_t_test(rates):
    got = estimate(flat(rates), ["books"])
    assert got.document_variance < 1e-30
    assert got.freedom == pytest.approx(len(rates) - 1)
    reference = stats.ttest_rel(np.full(len(rates), 3.0), 3.0 - np.array(rates))
    assert got.interval(0.95) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    p = got.above_p(0)
    assert 2 * min(p, 1 - p) == pytest.approx(reference.pvalue)
    lower = stats.ttest_1samp(rates, -MARGIN, alternative="greater").pvalue
    upper = stats.ttest_1samp(rates, MARGIN, alternative="less").pvalue
    assert equivalence_p(got) == pytest.approx(max(lower, upper))


def test_variances_and_freedom_are_those_of_the_jackknife_of_clusters():
    rng = np.random.default_rng(3)
    bytes_N, clusters = rng.integers(100, 3000, 40), (np.arange(40) % 12).astype(str)
    first = rng.normal(500, 5, (5, 40))
    second = first + rng.normal(20, 100, 40) + rng.normal(0, 50, (5, 40)) + rng.normal(0, 0.02, (5, 1)) * bytes_N
    domains = ["books"] * 40
    whole = estimate(tabulate(first, second, bytes_N, clusters, domains), ["books"])
    moved = []
    for left_out in sorted(set(clusters)):
        at = clusters != left_out
        rest = estimate(tabulate(first[:, at], second[:, at], bytes_N[at], clusters[at], domains[: at.sum()]), ["books"])
        moved.append(np.array(rest.seed_gaps) - whole.seed_gaps)
    moved_SC = np.array(moved).T
    document, shared = 11 / 12 * (moved_SC.mean(axis=0) ** 2).sum(), 11 / 12 * moved_SC.var(axis=0, ddof=1).sum() / 5
    assert whole.clusters == 12
    assert whole.document_variance == pytest.approx(document)
    assert whole.shared_variance == pytest.approx(shared)
    seed = np.var(whole.seed_gaps, ddof=1) / 5
    assert document > shared
    assert whole.variance == pytest.approx(seed + document - shared)
    sizes = np.array([bytes_N[clusters == name].sum() for name in set(clusters)])
    of_documents = sizes.sum() ** 2 / (sizes**2).sum() - 1
    below = seed**2 / 4 + document**2 / of_documents + shared**2 / (4 * of_documents)
    assert (seed + document - shared) ** 2 / below > 4
    assert whole.freedom == pytest.approx((seed + document - shared) ** 2 / below)


def test_noise_of_seeds_on_documents_counts_once():
    second = np.full((2, 2), 40.0)
    got = estimate(tabulate(second - [[6, 2], [4, 2]], second, np.array([10, 10]), ["a", "b"], ["books", "books"]), ["books"])
    # Gaps .4 and .3; a cluster less moves them by .2 and .1: .15 on average.
    assert (got.seed_variance, got.document_variance) == pytest.approx((0.005 / 2, 2 * 0.15**2 / 2))
    assert got.shared_variance == pytest.approx(2 * 0.005 / 2 / 2)
    assert got.variance == pytest.approx(0.0025 + 0.0225 - 0.0025)
    # And where it is all that the documents differ by, they add nothing.
    noise = estimate(tabulate(second - [[6, 2], [2, 4]], second, np.array([10, 10]), ["a", "b"], ["books", "books"]), ["books"])
    assert noise.document_variance < noise.shared_variance
    assert noise.variance == noise.seed_variance


def test_document_variance_is_that_of_a_cluster_bootstrap():
    rng = np.random.default_rng(4)
    cells = drawn(rng, 5, 80, 0.02, 0.1, 0.05, gap=0.1)
    bits_K = cells.bits_SK.mean(axis=0)
    again = rng.integers(0, 80, (20_000, 80))
    ratios = bits_K[again].sum(axis=1) / cells.bytes_K[again].sum(axis=1)
    assert estimate(cells, ["0"]).document_variance == pytest.approx(ratios.var(), rel=0.06)


def test_the_endpoint_weighs_domains_equally_and_keeps_a_cluster_whole():
    rng = np.random.default_rng(5)
    bytes_N = np.array([100, 200, 300, 1000, 2000, 9000])
    first, second = rng.normal(900, 90, (5, 6)), rng.normal(900, 90, (5, 6))
    domains = ["books"] * 3 + ["news"] * 3
    apart = tabulate(first, second, bytes_N, list("abcdef"), domains)
    books, news, both = (estimate(apart, names) for names in (["books"], ["news"], ["news", "books"]))
    assert both.seed_gaps == pytest.approx([(b + n) / 2 for b, n in zip(books.seed_gaps, news.seed_gaps, strict=True)])
    assert both.document_variance == pytest.approx((books.document_variance + news.document_variance) / 4)
    assert (books.clusters, both.clusters) == (3, 6)
    # An author in both domains: what the domains have in common adds to the variance, as for sums of dependent terms.
    effect = [
        np.sqrt(2 / 3) / 2 * (d.sum(0) / 5 - gap * size) / (size.sum() - size)
        for d, size, gap in (((second - first)[:, :3], bytes_N[:3], books.gap), ((second - first)[:, 3:], bytes_N[3:], news.gap))
    ]
    shared = estimate(tabulate(first, second, bytes_N, list("abcabc"), domains), ["books", "news"])
    assert shared.clusters == 3
    assert shared.document_variance == pytest.approx(((effect[0] + effect[1]) ** 2).sum())


def test_one_seed_or_one_cluster_has_no_interval():
    one_seed = decide(estimate(flat([0.2]), ["books"]))
    assert (one_seed.low, one_seed.high, one_seed.verdict) == (-math.inf, math.inf, Verdict.TOO_FEW)
    bits = np.full((5, 2), 90.0)
    one_cluster = tabulate(bits - 5, bits, np.array([30, 30]), ["a", "a"], ["books", "books"])
    found = contrast(one_cluster, ["books"], ARMS, ["quality"])
    assert (found.primary.low, found.primary.high, found.primary.verdict) == (-math.inf, math.inf, Verdict.OPEN)
    assert found.primary.equivalence_p == 1
    assert "no interval: a domain has one cluster of documents only" in found.sentence


# -- Properties -------------------------------------------------------------------------------------------------------------

SIZES = st.integers(2, 24)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 200))
def test_no_order_of_documents_changes_a_digit(seed, seeds, documents):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(500, 50, (2, seeds, documents))
    bytes_N = rng.integers(1, 3000, documents)
    clusters, domains = rng.choice(list("ab"), documents), rng.choice(["books", "news"], documents)
    order = rng.permutation(documents)
    found = [
        estimate(tabulate(first[:, at], second[:, at], bytes_N[at], clusters[at], domains[at]), domains)
        for at in (np.arange(documents), order)
    ]
    assert found[0] == found[1]


@given(st.integers(0, 2**32), st.integers(2, 8), SIZES, st.integers(-8, 8))
def test_scale_and_exchange(seed, seeds, documents, power):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(500, 50, (2, seeds, documents))
    bytes_N, clusters, domains = rng.integers(1, 3000, documents), rng.choice(list("abcdef"), documents), ["books"] * documents
    cells = tabulate(first, second, bytes_N, clusters, domains)
    once, exchanged = (decide(estimate(c, ["books"])) for c in (cells, tabulate(second, first, bytes_N, clusters, domains)))
    scaled = estimate(tabulate(first * 2.0**power, second * 2.0**power, bytes_N, clusters, domains), ["books"])
    assert scaled.gap == once.estimate.gap * 2.0**power
    assert scaled.interval(0.9) == pytest.approx(tuple(bound * 2.0**power for bound in once.estimate.interval(0.9)))
    assert scaled.flip_p() == once.estimate.flip_p()
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert exchanged.estimate.gap == -once.estimate.gap
    assert (exchanged.low, exchanged.high) == (-once.high, -once.low)
    assert exchanged.equivalence_p == once.equivalence_p
    assert exchanged.verdict == opposite.get(once.verdict, once.verdict)
    assert exchanged.estimate.flip_p() == once.estimate.flip_p()


# -- Simulations ------------------------------------------------------------------------------------------------------------


def test_five_seeds_cover_what_they_say_and_a_percentile_bootstrap_does_not():
    rng, trials, truth = np.random.default_rng(11), 2000, 0.1
    rates = truth + 0.03 * rng.standard_normal((trials, 5))
    low, high = np.array([estimate(flat(row), ["books"]).interval(0.95) for row in rates]).T
    ours = ((low <= truth) & (truth <= high)).mean()
    means = rates[:, rng.integers(0, 5, (1000, 5))].mean(axis=2)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    bootstrap = ((low <= truth) & (truth <= high)).mean()
    error = math.sqrt(0.95 * 0.05 / trials)
    assert ours == pytest.approx(0.95, abs=3 * error)
    assert bootstrap == pytest.approx(0.83, abs=0.03)


@pytest.mark.parametrize(
    "sizes",
    [
        {"seeds": 5, "clusters": 30, "seed_sd": 0.03, "cluster_sd": 0.08, "both_sd": 0.05},
        {"seeds": 5, "clusters": 30, "seed_sd": 0.005, "cluster_sd": 0.2, "both_sd": 0.02},
        {"seeds": 8, "clusters": 15, "seed_sd": 0.02, "cluster_sd": 0.1, "both_sd": 0.05, "domains": 3},
        {"seeds": 5, "clusters": 30, "seed_sd": 0.01, "cluster_sd": 0.1, "both_sd": 0.05, "uneven": 1.0},
    ],
    ids=["seeds and documents", "documents", "three domains", "uneven clusters"],
)
def test_new_seeds_and_new_documents_are_covered(sizes):
    rng, trials, truth = np.random.default_rng(12), 1000, 0.1
    covered = 0
    for _ in range(trials):
        cells = drawn(rng, gap=truth, **sizes)
        low, high = estimate(cells, cells.domain_names).interval(0.95)
        covered += low <= truth <= high
    assert covered / trials == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / trials))


def test_false_positives_stay_within_the_nominal_rate_and_effects_are_found():
    rng, trials = np.random.default_rng(13), 400
    sizes = {"seeds": 8, "clusters": 12, "seed_sd": 0.03, "cluster_sd": 0.05, "both_sd": 0.03, "domains": 4}
    wrong = wrong_anywhere = 0
    for _ in range(trials):
        cells = drawn(rng, **sizes)
        wrong += decide(estimate(cells, cells.domain_names)).verdict in (Verdict.BETTER, Verdict.WORSE)
        wrong_anywhere += any(f.verdict in (Verdict.BETTER, Verdict.WORSE) for f in by_domain(cells).values())
    assert 0 < wrong <= at_most(0.05, trials)
    assert 0 < wrong_anywhere <= at_most(0.05, trials)
    found = [decide(estimate(drawn(rng, gap=0.1, **sizes), list("0123"))).verdict for _ in range(100)]
    assert found.count(Verdict.BETTER) >= 99


def test_sign_flips_and_equivalence_stay_within_the_nominal_rate():
    rng, trials = np.random.default_rng(14), 1000
    null = 0.03 * rng.standard_normal((trials, 8))
    flips = sum(sign_flip_p(row) <= 0.05 for row in null)
    # 12 of 256 sums may be as far: the largest number of an even count below .05 of all.
    assert flips == pytest.approx(trials * 12 / 256, abs=3 * math.sqrt(trials * 0.047 * 0.953))
    at_the_margin = [estimate(flat(MARGIN + row / 5), ["books"]) for row in null]
    assert sum(equivalence_p(gap) <= 0.05 for gap in at_the_margin) <= at_most(0.05, trials)
    none = [decide(estimate(flat(row / 5), ["books"])).verdict for row in null[:200]]
    assert none.count(Verdict.EQUIVALENT) >= 200 - at_most(0.05, 200)


# -- Verdicts and sentences -------------------------------------------------------------------------------------------------

CLEAR = [0.15, 0.16, 0.14, 0.15, 0.15]
NOISY = [0.3, -0.2, 0.1, -0.1, 0.05]


@pytest.mark.parametrize(
    ("rates", "verdict", "said"),
    [
        (CLEAR, Verdict.BETTER, "filtered better than unfiltered; gap +0.1500"),
        ([-r for r in CLEAR], Verdict.WORSE, "filtered worse than unfiltered; gap -0.1500"),
        ([r / 15 for r in CLEAR], Verdict.BETTER, "filtered better than unfiltered, by less than 0.02 bits per byte; "),
        ([0.001, -0.001, 0.002, -0.002, 0.0], Verdict.EQUIVALENT, "filtered and unfiltered equivalent within 0.02 bits per byte; "),
        (NOISY, Verdict.OPEN, "filtered against unfiltered not resolved; "),
        (CLEAR[: MIN_SEEDS - 1], Verdict.TOO_FEW, "too few runs for a verdict: 4 of at least 5 paired seeds; gap +0.1500"),
        (
            CLEAR[:1],
            Verdict.TOO_FEW,
            "too few runs for a verdict: 1 of at least 5 paired seeds; gap +0.1500 bits per byte, no interval",
        ),
    ],
)
def test_verdicts(rates, verdict, said):
    found = contrast(flat(rates), ["books"], ARMS, ["quality"])
    assert found.primary.verdict == verdict
    assert found.sentence.startswith(said)
    assert not found.because_of_quality


def test_a_whole_sentence():
    found = contrast(flat(CLEAR), ["books"], ARMS, ["quality"], flat([r / 2 for r in CLEAR]))
    half = stats.t.ppf(0.975, 4) * np.std(CLEAR, ddof=1) / math.sqrt(5)
    assert found.sentence == (
        f"filtered better than unfiltered; gap +0.1500 bits per byte, 95 % interval {0.15 - half:+.4f} to {0.15 + half:+.4f}; "
        "5 seeds, sign-flip p 0.0625; because of quality: gap over matched random documents +0.0750, "
        f"95 % interval {0.075 - half / 2:+.4f} to {0.075 + half / 2:+.4f}"
    )


@pytest.mark.parametrize(
    ("rates", "steps", "matched", "because", "said"),
    [
        (CLEAR, ["quality"], CLEAR, True, "; because of quality: gap over matched random documents +0.1500"),
        ([-r for r in CLEAR], ["quality"], [-r for r in CLEAR], True, "; because of quality: "),
        (
            CLEAR,
            ["quality"],
            [-r for r in CLEAR],
            False,
            "; not shown to be because of quality: gap over matched random documents -0.1500",
        ),
        (CLEAR, ["quality"], NOISY, False, "; not shown to be because of quality: gap over matched random documents +0.0300"),
        (
            CLEAR,
            ["quality"],
            CLEAR[:3],
            False,
            "; not shown to be because of quality: 3 of at least 5 paired seeds of matched random documents",
        ),
        (CLEAR, ["quality"], None, False, "; not shown to be because of quality: no run on matched random documents"),
        (CLEAR, ["language", "quality"], CLEAR, False, "; the variants differ in 2 steps (language, quality), so that none"),
        (CLEAR, ["language"], CLEAR, False, "sign-flip p 0.0625"),
        (CLEAR, ["another run"], CLEAR, False, "; the variants are of two runs, which may differ in more than one step, so that"),
        (NOISY, ["quality"], CLEAR, False, "; 5 seeds, sign-flip p "),
    ],
)
def test_quality_is_the_cause_only_where_there_is_proof(rates, steps, matched, because, said):
    found = contrast(flat(rates), ["books"], ARMS, steps, None if matched is None else flat(matched))
    assert found.because_of_quality is because
    assert said in found.sentence
    assert ("; because of quality" in found.sentence) is because


def test_domains_have_simultaneous_intervals():
    cells = drawn(np.random.default_rng(6), 5, 10, 0.02, 0.05, 0.02, gap=0.1, domains=4)
    found = contrast(cells, ["0", "1"], ARMS, ["quality"])
    assert list(found.domains) == ["0", "1", "2", "3"]
    for name, domain in found.domains.items():
        assert domain.level == pytest.approx(1 - (1 - LEVEL) / 4)
        assert (domain.low, domain.high) == estimate(cells, [name]).interval(domain.level)
    assert found.primary.estimate == estimate(cells, ["1", "0"])


# -- Faults -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": np.ones((3, 2))}, r"shapes \(2, 2\) and \(3, 2\)"),
        ({"first": np.ones(2), "second": np.ones(2)}, r"give \[seeds, documents\]"),
        ({"bytes_N": np.array([1, 2, 3])}, r"bytes have shape \(3,\) but bits name 2 documents"),
        ({"clusters": ["a"]}, "clusters have shape"),
        ({"domains": ["books"] * 3}, "domains have shape"),
        ({"first": np.array([[1, 2], [1, np.nan]])}, "first arm, seed row 1, document 1: bits are nan"),
        ({"second": np.array([[1, -np.inf], [1, 2]])}, "second arm, seed row 0, document 1: bits are -inf"),
        ({"bytes_N": np.array([1, 0])}, "at least 1"),
        ({"bytes_N": np.array([1.5, 2.0])}, "whole numbers"),
        ({"first": np.ones((0, 2)), "second": np.ones((0, 2))}, "at least one seed"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given_ = {"first": np.ones((2, 2)), "second": np.ones((2, 2)), "bytes_N": np.array([1, 2]), "clusters": ["a", "b"]}
    given_ = given_ | {"domains": ["books"] * 2} | change
    with pytest.raises(UserError, match=message) as raised:
        tabulate(given_["first"], given_["second"], given_["bytes_N"], given_["clusters"], given_["domains"])
    assert "\n" not in str(raised.value)


def test_an_endpoint_names_domains_that_have_documents():
    with pytest.raises(UserError, match="'news' has no document: the evaluation sets are books"):
        estimate(flat(CLEAR), ["books", "news"])
    with pytest.raises(UserError, match="name at least one"):
        contrast(flat(CLEAR), [], ARMS, ["quality"])
