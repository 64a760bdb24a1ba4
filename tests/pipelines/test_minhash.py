"""pipelines.dedup.minhash: kernels against plain Python, estimates against brute force and datasketch."""

import gzip
import json
import math
import os
import pathlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.minhash import (
    NO_MINIMUM,
    MinHashSpec,
    agreement,
    band_hash_reference,
    band_hashes,
    choose_bands,
    pack,
    signature_reference,
    signatures,
    unpack,
)

SPECIFICATION = pathlib.Path(__file__).parents[2] / "docs" / "normalisation.md"
SPEC = MinHashSpec(num_perm=16, ngram=5, seed=1, text_cap=500_000)
SPECS = (SPEC, MinHashSpec(8, 1, 2, 100), MinHashSpec(9, 32, 2**63 - 1, 777), MinHashSpec(1, 2, 0, 3))

PIECES = [
    "Word",
    "x",
    "Z9",
    " ",
    ", ",
    "\n",
    "\0",
    "é",
    "ÉTÉ",
    "İ",
    "Σς",
    "ж",
    "한국어",
    "漢",
    "かな",
    "ก็",
    "မြန်",
    "²",
    "٣",
]
PIECES += ["\u0301", "\u200d", "\u00a0", "😀", "Ⱥ", "K", "internationalisation", "—", "𠀀", "ﾊ", "a" * 61]
piece_text = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def large(texts):
    return pa.array(texts, pa.large_string())


def assert_equals_reference(texts, spec):
    minima, valid = signatures(large(texts), spec)
    assert minima.shape == (len(texts), spec.num_perm)
    assert minima.dtype == np.uint32
    for text, row, is_valid in zip(texts, minima, valid, strict=True):
        expected = signature_reference(text, spec)
        assert (row.tolist() if is_valid else None) == expected
        assert is_valid or (row == NO_MINIMUM).all()


# -- signatures --------------------------------------------------------------------------------------------------------


@given(st.lists(piece_text, max_size=8), st.sampled_from(SPECS))
def test_kernel_equals_reference(texts, spec):
    assert_equals_reference(texts, spec)


def test_kernel_equals_reference_on_edge_texts():
    texts = [
        "",
        "\0",
        "a",
        "a" * 5000,
        "É" * 3000,
        "漢" * 3000,
        "😀" * 40,
        "\u00a0 one \u00a0",
        "x" * 64,
        "x" * 63 + "é",
    ]
    texts += [f"{'w ' * count}end" for count in (1, 3, 4, 5, 31, 32, 510, 511, 512, 513, 516, 575, 576, 577, 1100)]
    texts += ["x" * place + piece + "tail word" for place in range(55, 67) for piece in PIECES]
    texts += ["w" * size for size in range(1, 40)]
    for spec in SPECS:
        assert_equals_reference(texts, spec)


def test_slices_and_batches_give_the_same_signatures():
    rng = random.Random(3)
    array = large(["".join(rng.choices([*PIECES, " and then "], k=80)) for _ in range(60)])
    minima, valid = signatures(array, SPEC)
    for first, stop in ((0, 60), (7, 7), (13, 41), (59, 60)):
        part, part_valid = signatures(array[first:stop], SPEC)
        assert (part == minima[first:stop]).all()
        assert (part_valid == valid[first:stop]).all()


def test_text_behind_the_cap_is_not_read_and_no_character_is_cut():
    text = "one two three four five six sévèn eight"
    for cap in range(1, len(text.encode()) + 2):
        spec = MinHashSpec(16, 5, 1, cap)
        read = text.encode()[:cap].decode(errors="ignore")
        minima, valid = signatures(large([text, read]), spec)
        assert (minima[0] == minima[1]).all()
        assert valid[0] == valid[1]


def test_signature_is_that_of_the_set_of_shingles():
    """Shingles seen again change nothing; neither do case, punctuation and spacing."""
    text = "the cat sat on the mat and"
    minima, _ = signatures(
        large([f"{text} {text} {text}", f"{text} " * 40, f"THE cat, (sat) on\nthe--MAT and {text}"]), SPEC
    )
    assert (minima[0] == minima[1]).all()
    assert (minima[0] == minima[2]).all()


def test_seeds_give_different_permutations_and_odd_multipliers():
    drawn = [MinHashSpec(112, 5, seed, 1000).permutations() for seed in range(5)]
    assert all((multipliers & 1).all() for multipliers, _ in drawn)
    assert len({int(a) for multipliers, _ in drawn for a in multipliers}) == 5 * 112
    assert len({int(b) for _, increments in drawn for b in increments}) == 5 * 112


def test_eight_threads_agree():
    rng = random.Random(4)
    array = large(["".join(rng.choices([*PIECES, " plain words "], k=90)) for _ in range(400)])
    expected, _ = signatures(array, SPEC)
    with ThreadPoolExecutor(8) as pool:
        assert all((minima == expected).all() for minima, _ in pool.map(lambda _: signatures(array, SPEC), range(32)))


def test_vectors_of_the_specification():
    vectors = json.loads(SPECIFICATION.read_text().split("```json\n")[1].split("```")[0])["signature"]
    assert len(vectors) == 5
    for vector in vectors:
        spec = MinHashSpec(vector["num_perm"], vector["ngram"], vector["seed"], vector["text_cap"])
        assert signature_reference(vector["text"], spec) == vector["minima"]
        minima, valid = signatures(large([vector["text"]]), spec)
        assert (minima[0].tolist() if valid[0] else None) == vector["minima"]
        if valid[0]:
            assert int(band_hashes(minima, 2, 2)[0, 1]) == vector["bucket_of_band_1_of_2_rows"]


def test_kernel_equals_reference_on_real_texts_of_many_languages(real_data):
    with gzip.open(real_data / "bench" / "multi.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][::30]
    assert_equals_reference(texts, SPEC)


# -- the estimate ------------------------------------------------------------------------------------------------------

NUM_PERM, BANDS, ROWS = 112, 14, 8


@pytest.fixture(scope="module")
def near_pairs():
    """300 pairs of texts, the second with some words replaced: (texts, sets of shingles, true Jaccard)."""
    rng = random.Random(5)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    texts = []
    for pair in range(300):
        words = rng.choices(vocabulary, k=rng.randint(150, 400))
        changed = [rng.choice(vocabulary) if rng.random() < 0.005 + 0.06 * pair / 300 else word for word in words]
        texts += [" ".join(words), " ".join(changed)]
    shingles = [{" ".join(words[i : i + 5]) for i in range(len(words) - 4)} for words in map(str.split, texts)]
    jaccard = np.array([len(a & b) / len(a | b) for a, b in zip(shingles[::2], shingles[1::2], strict=True)])
    return texts, shingles, jaccard


def test_estimate_has_the_error_of_theory_as_datasketch_has(near_pairs):
    """Judged by brute-force Jaccard over five seeds: no bias, and a mean square error as sqrt(J (1 - J) / n) says."""
    texts, shingles, jaccard = near_pairs
    variance = jaccard * (1 - jaccard) / NUM_PERM
    ours, peers = [], []
    for seed in range(1, 6):
        minima, valid = signatures(large(texts), MinHashSpec(NUM_PERM, 5, seed, 500_000))
        assert valid.all()
        ours.append(agreement(minima[::2], minima[1::2]) - jaccard)
        hashes = [MinHash(num_perm=NUM_PERM, seed=seed) for _ in texts]
        for sketch, parts in zip(hashes, shingles, strict=True):
            sketch.update_batch([part.encode() for part in parts])
        pairs = zip(hashes[::2], hashes[1::2], strict=True)
        peers.append(np.array([left.jaccard(right) for left, right in pairs]) - jaccard)
    for errors in (np.array(ours), np.array(peers)):
        # Pairs under one seed share permutations, so the mean over pairs is judged by the spread between seeds as well.
        assert abs(errors.mean()) < 0.004
        assert 0.85 < math.sqrt((errors**2).mean() / variance.mean()) < 1.15


def test_bands_find_what_theory_says_as_datasketch_does(near_pairs):
    """Pairs that share a band: 1 - (1 - J^rows)^bands of them, and none of different texts."""
    texts, shingles, jaccard = near_pairs
    found = 1 - (1 - jaccard**ROWS) ** BANDS
    expected, spread = found.sum(), 5 * math.sqrt((found * (1 - found)).sum())
    minima, _ = signatures(large(texts), MinHashSpec(NUM_PERM, 5, 1, 500_000))
    buckets = band_hashes(minima, BANDS, ROWS)
    ours = int((buckets[::2] == buckets[1::2]).any(axis=1).sum())

    index = MinHashLSH(num_perm=NUM_PERM, params=(BANDS, ROWS))
    peers = 0
    for number, parts in enumerate(shingles):
        sketch = MinHash(num_perm=NUM_PERM)
        sketch.update_batch([part.encode() for part in parts])
        peers += number % 2 == 1 and number - 1 in index.query(sketch)
        index.insert(number, sketch)
    assert abs(ours - expected) < spread
    assert abs(peers - expected) < spread
    values, counts = np.unique(buckets, return_counts=True)
    assert counts.max() == 2
    shared = int((buckets[::2] == buckets[1::2]).sum())
    assert len(values) == buckets.size - shared


# -- bands, agreement, columns -----------------------------------------------------------------------------------------


def test_band_hashes_equal_their_reference_and_tell_bands_apart():
    minima = np.random.default_rng(6).integers(0, 2**32, (20, 20), dtype=np.uint32)
    buckets = band_hashes(minima, 6, 3)  # two minima are left over
    assert buckets.dtype == np.uint64
    for row, bucket_row in zip(minima.tolist(), buckets.tolist(), strict=True):
        assert bucket_row == [band_hash_reference(row[3 * band : 3 * band + 3], band) for band in range(6)]
    equal = np.full((1, 18), 7, np.uint32)
    assert len(np.unique(band_hashes(equal, 6, 3))) == 6
    assert (band_hashes(minima[::2], 6, 3) == buckets[::2]).all()
    with pytest.raises(ValueError, match="7 bands of 3 rows need 21 minima, not 20"):
        band_hashes(minima, 7, 3)


@pytest.mark.parametrize(("threshold", "num_perm"), [(0.7, 112), (0.5, 128), (0.8, 112), (0.9, 64)])
def test_chosen_bands_are_those_of_datasketch(threshold, num_perm):
    index = MinHashLSH(threshold=threshold, num_perm=num_perm, weights=(0.5, 0.5))
    assert choose_bands(threshold, num_perm) == (index.b, index.r)


def test_agreement_counts_equal_minima():
    left = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [9, 9, 9, 9]], np.uint32)
    right = np.array([[1, 2, 3, 4], [1, 0, 3, 0], [1, 2, 3, 4]], np.uint32)
    assert agreement(left, right).tolist() == [1.0, 0.5, 0.0]
    assert agreement(left, right).dtype == np.float32
    assert agreement(left[:0], right[:0]).shape == (0,)


def test_sixteen_bits_agree_by_chance_once_in_65536():
    rng = np.random.default_rng(7)
    left, right = (rng.integers(0, 2**32, (20_000, 112), dtype=np.uint32) for _ in range(2))
    chance = float(agreement(left.astype(np.uint16), right.astype(np.uint16)).mean(dtype=np.float64))
    assert abs(chance - 2**-16) < 5 * math.sqrt(2**-16 / left.size)
    assert agreement(left, right).max() == 0


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_pack_and_unpack(valid, first, length):
    valid = np.array(valid, bool)
    minima = np.random.default_rng(8).integers(0, 2**32, (len(valid), 5), dtype=np.uint32)
    minima[~valid] = NO_MINIMUM
    packed = pack(minima, valid)
    packed.validate(full=True)
    assert packed.to_pylist() == [
        row.astype("<u4").tobytes() if ok else None for row, ok in zip(minima, valid, strict=True)
    ]
    for array, rows in ((packed, slice(None)), (packed[first : first + length], slice(first, first + length))):
        for shape in (array, pa.chunked_array([array, array[:0]])):
            back, back_valid = unpack(shape, 5)
            assert (back == minima[rows]).all()
            assert (back_valid == valid[rows]).all()


def test_unpack_refuses_signatures_of_another_length():
    packed = pack(np.zeros((2, 4), np.uint32), np.array([True, True]))
    with pytest.raises(ValueError, match=r"signatures of \[16\] bytes, 20 expected"):
        unpack(packed, 5)


def test_kernels_stay_within_their_arrays(tmp_path):
    """The comparisons with the reference once more, with numba's bounds checks on."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    chosen = "equals_reference or equal_their_reference"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
