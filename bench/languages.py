"""Language identification on labelled sentences: `python bench/languages.py FILE`.

FILE has a language code, a tab and a sentence a line, as `eld/tests/data/big-test.txt` of the package eld 1.0.6 (60 languages,
1,000 sentences each). Printed: accuracy, sentences whose label is not fastText's own, MB of text a CPU second of both, and the
languages that do worst.
"""

from __future__ import annotations

import collections
import sys
import time

import numpy as np
import pyarrow as pa

from pipelines import packages
from quality import language

SAME = {"nb": "no", "nn": "no", "tl": "tl", "fil": "tl"}  # codes that eld and lid.176 write in two ways


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("\t", 1) for line in lines if "\t" in line]
    wanted = [SAME.get(code, code) for code, _ in pairs]
    texts = pa.array([text for _, text in pairs], pa.large_string())
    megabytes = sum(len(text.encode()) for _, text in pairs) / 1e6
    path = packages.language_model()
    model = language.parse(path.read_bytes(), str(path))
    identify = language.LanguageIdentifier(model, None)
    identify(texts[:100])
    found, seconds = timed(lambda: identify(texts)[0].to_pylist())
    theirs, their_seconds = timed(lambda: language.reference(model, texts)[0].to_pylist())
    right = np.array([SAME.get(one or "", one) == code for one, code in zip(found, wanted, strict=True)])
    print(f"{len(pairs):,} sentences, {len(set(wanted))} languages, {megabytes:.1f} MB")
    print(f"accuracy {right.mean():.2%}; {sum(a != b for a, b in zip(found, theirs, strict=True))} labels are not fastText's own")
    print(f"MB a CPU second: {megabytes / seconds:.1f}, fastText {megabytes / their_seconds:.1f}")
    by_language = collections.defaultdict(list)
    for code, ok in zip(wanted, right, strict=True):
        by_language[code].append(ok)
    worst = sorted((float(np.mean(oks)), code) for code, oks in by_language.items())[:8]
    print("worst: " + ", ".join(f"{code} {share:.1%}" for share, code in worst))


def timed(call):
    started = time.process_time()
    return call(), time.process_time() - started


if __name__ == "__main__":
    main()
