"""The text kernels one by one, on one thread: MB of UTF-8 text per CPU second, median of five passes over a file.

    python bench/kernels.py FILE [--kernels signals,bpe] [--documents N] [--batch 600]

FILE holds JSON lines with `text`, gzipped or not. `first` is the CPU time of the first batch, which loads the compiled code
or compiles it. Kernels that read only the start of a text are measured by what they read. The tokenizer is trained on the
file's first 8 MB; the classifier has random weights, which cost the same as any.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines import bpe
from pipelines.dedup.minhash import MinHashSpec, band_hashes, signatures
from pipelines.normalise import normalise
from quality.classifier import Classifier, Scorer
from quality.classifier_kernel import TEXT_CAP
from quality.signals import Signals

PASSES = 5
BANDS, ROWS, MINHASH_CAP = 14, 8, 500_000
VOCABULARY, TRAINED_ON = 32_000, 8_000_000
BITS = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts, as readers give them and as kernels take them."""

    strings: list[str]
    texts: pa.Array  # large_string


@dataclass(frozen=True, slots=True)
class Kernel:
    """`make` gets all batches and returns what is timed; `cap`: the bytes of a text that it reads."""

    make: Callable[[list[Batch]], Callable[[Batch], object]]
    cap: int | None = None


def normalising(batches: list[Batch]) -> Callable[[Batch], object]:
    return lambda batch: normalise(batch.strings, "prose")


def counting(batches: list[Batch]) -> Callable[[Batch], object]:
    signals = Signals()
    return lambda batch: signals(batch.texts)


def signing(batches: list[Batch]) -> Callable[[Batch], object]:
    spec = MinHashSpec(BANDS * ROWS, 5, 1, MINHASH_CAP)
    return lambda batch: band_hashes(signatures(batch.texts, spec)[0], BANDS, ROWS)


def scoring(batches: list[Batch]) -> Callable[[Batch], object]:
    weights = np.random.default_rng(1).standard_normal(1 << BITS).astype(np.float32)
    scorer = Scorer(Classifier(weights, 0.0, 1.0, 0.0, {}))
    return lambda batch: scorer(batch.texts)


def encoding(batches: list[Batch]) -> Callable[[Batch], object]:
    strings = itertools.chain.from_iterable(batch.strings for batch in batches)
    sizes = itertools.accumulate(len(text) for batch in batches for text in batch.strings)
    few = [text for text, size in zip(strings, sizes, strict=True) if size <= TRAINED_ON]
    encoder = bpe.Encoder(bpe.train(iter(few or batches[0].strings[:1]), VOCABULARY, "split"))
    return lambda batch: encoder(batch.texts)


KERNELS = {
    "normalise": Kernel(normalising),
    "signals": Kernel(counting),
    "classifier": Kernel(scoring, cap=TEXT_CAP),
    "minhash": Kernel(signing, cap=MINHASH_CAP),
    "bpe": Kernel(encoding),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--kernels", default=",".join(KERNELS), help=f"some of {','.join(KERNELS)}")
    parser.add_argument("--documents", type=int, help="take only the first N")
    parser.add_argument("--batch", type=int, default=600, help="documents in a batch")
    chosen = parser.parse_args()
    names = chosen.kernels.split(",")
    unknown = [name for name in names if name not in KERNELS]
    if unknown:
        parser.error(f"no kernel {unknown[0]!r}; known are {', '.join(KERNELS)}")
    pa.set_cpu_count(1)
    batches = read(chosen.file, chosen.documents, chosen.batch)
    lengths = np.array([len(text.encode()) for batch in batches for text in batch.strings])
    print(f"{chosen.file.name}: {len(lengths)} documents, {lengths.sum() / 1e6:.2f} MB, {chosen.batch} a batch")
    print(f"{'kernel':<12}{'MB/s':>8}{'slowest':>9}{'fastest':>9}{'documents/s':>13}{'first':>8}")
    for name in names:
        kernel = KERNELS[name]
        megabytes = np.minimum(lengths, kernel.cap or lengths).sum() / 1e6
        first, seconds = measure(kernel.make(batches), batches)
        typical = statistics.median(seconds)
        rates = "".join(f"{megabytes / s:>{width}.0f}" for s, width in ((typical, 8), (max(seconds), 9), (min(seconds), 9)))
        print(f"{name:<12}{rates}{len(lengths) / typical:>13,.0f}{first:>7.2f}s", flush=True)


def read(path: pathlib.Path, documents: int | None, size: int) -> list[Batch]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        strings = [json.loads(line)["text"] for line in itertools.islice(lines, documents)]
    parts = [strings[first : first + size] for first in range(0, len(strings), size)]
    return [Batch(part, pa.array(part, pa.large_string())) for part in parts]


def measure(run: Callable[[Batch], object], batches: list[Batch]) -> tuple[float, list[float]]:
    """(CPU seconds of the first batch, of each pass over all batches)."""
    begin = time.process_time()
    run(batches[0])
    first = time.process_time() - begin
    seconds = []
    for _ in range(PASSES):
        begin = time.process_time()
        for batch in batches:
            run(batch)
        seconds.append(time.process_time() - begin)
    return first, seconds


if __name__ == "__main__":
    main()
