"""`llama.yaml` over real data of every source: `python bench/llama_build.py DATA [--tokens 4000000]`.

DATA holds web/, warc/, stackexchange/, latex/ and books/; the dumps of Wikipedia come out of the embedded sample (run `winnow demo`
once), code out of this environment's site-packages. None of it is what LLaMA read: common_crawl is saved pages and test archives,
c4 is c4_like: the whole text of other saved pages as rows in the published schema, put through C4's rules here (`clean: c4`), as no
published file is at hand; arxiv is two books of LaTeX packed as submissions with preambles, macros and inputs; books are texts of
eight languages. Printed: conservation by source, what C4's rules did, what LaTeX came to, and the mixture asked against got.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import pathlib
import re
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import zipfile

import pyarrow.parquet as pq
from extraction import pages, visible_text

from pipelines import packages, sample
from pipelines.build import build
from pipelines.engine import load_engine
from pipelines.recipe_file import load
from pipelines.sources.latex import decode, strip_comments

REPOSITORIES = ("attrs", "click", "httpx", "jinja2", "rich", "torch/nn", "numpy/lib", "pyarrow", "pygments", "typer", "yaml")
STACKS_SHARED = ("preamble.tex", "chapters.tex", "my.bib", "stacks-project.cls")  # what a chapter asks for
INPUT = re.compile(r"\\(?:input|include)\b")
MACRO = re.compile(r"\\newcommand\{\\([A-Za-z]+)\}\{")
BOOK = "hott-online.tex"  # the book as its authors put it online: its settings, then main.tex
APART = ("hott-", "cover", "exercise", "errata")  # main files of their own: other papers' settings, the cover, the solutions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=4_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        lay_out(chosen.data, folder)
        smaller = [f"mixture.tokens={chosen.tokens}", "tokens.shards=2", "fit.perplexity.min_tokens=20000"]
        curated = "fit.quality={curated: [wikipedia, books], web: [common_crawl]}"  # the dump cites none of these pages
        recipe, _ = load("llama", [*smaller, curated, "sources.c4.clean=c4"])
        accounts = build(recipe, str(folder), str(folder / "run"), load_engine("local.yaml"), print)
        print(json.dumps(accounts.to_json()["sources"], indent=1))
        tell_c4(folder / "run", folder / "c4" / "c4_like.json.gz")
        tell_arxiv(folder / "run", folder / "arxiv" / "arXiv_src_2301_001.tar")
        for variant in recipe.variants:
            blend = json.loads((folder / "run" / "tokens" / variant / "blend.json").read_text())["train"]
            print(f"{variant:<14}{'asked':>8}{'got':>8}{'wanted':>12}{'in shards':>12}{'epochs':>8}")
            for source in recipe.sources:
                own = [entry for entry in blend if entry["prefix"].startswith(f"train/{source}-")]
                tokens, share = sum(entry["tokens"] for entry in own), sum(entry["weight"] for entry in own)
                wanted, asked = recipe.wanted_tokens()[source], recipe.wanted_tokens()[source] / chosen.tokens
                epochs = own[0]["epochs"] if own else 0
                print(f"{source:<14}{asked:>8.2%}{share:>8.2%}{wanted:>12,}{tokens:>12,}{epochs:>8.2f}")


def lay_out(data: pathlib.Path, folder: pathlib.Path) -> None:
    """The inputs of every source in the format in which the world publishes it."""
    for source in ("common_crawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"):
        (folder / source).mkdir()
    for path in [data / "web" / "web-trafilatura.warc.gz", *sorted((data / "warc").glob("*.warc.gz"))]:
        shutil.copy(path, folder / "common_crawl")
    c4_like(data / "web" / "web-recipes.warc.gz", folder / "c4" / "c4_like.json.gz")
    dumps = sorted((data / "stackexchange").iterdir())
    for path in dumps:
        shutil.copy(path, folder / "stackexchange")
    (folder / "stackexchange" / "sites.txt").write_text("".join(f"{path.name}\n" for path in dumps))
    for path in sorted(pathlib.Path(sample.sample_folder()).rglob("*.bz2")):
        shutil.copy(path, folder / "wikipedia")
    site = pathlib.Path(sysconfig.get_paths()["purelib"])
    for name in REPOSITORIES:
        if (site / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.a", "*.h")
            shutil.copytree(site / name, folder / "github" / name, ignore=ignored)
            for licence in sorted(site.glob(f"{name.split('/')[0]}-*.dist-info/**/LICENSE*"))[:1]:
                shutil.copy(licence, folder / "github" / name / "LICENSE")
    with zipfile.ZipFile(folder / "books" / "books.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted((data / "books").glob("*.jsonl.gz")):
            with gzip.open(path, "rt") as lines:
                for number, line in enumerate(lines):
                    out.writestr(f"{path.name.split('.')[0]}/{number:04d}.txt", json.loads(line)["text"])
    arxiv(data / "latex" / "latex-stacks-hott.tar.xz", folder / "arxiv" / "arXiv_src_2301_001.tar")


def column(run: pathlib.Path, table: str, name: str) -> list[str]:
    """A column of a source's table, all parts in order."""
    return [
        value for part in sorted((run / table).glob("*.parquet")) for value in pq.read_table(part, columns=[name])[name].to_pylist()
    ]


def tell_c4(run: pathlib.Path, rows: pathlib.Path) -> None:
    """What C4's rules leave of the pages, and the verdicts that follow."""
    with gzip.open(rows, "rt") as lines:
        before = [json.loads(line)["text"] for line in lines]
    after = column(run, "documents/c4", "text")
    lines_before, lines_after = (sum(len(text.split("\n")) for text in texts) for texts in (before, after))
    print(f"c4_like: {len(before)} pages, {sum(map(len, before)):,} characters in {lines_before:,} lines;", end=" ")
    print(f"C4 leaves {sum(map(len, after)):,} in {lines_after:,} lines of {sum(map(bool, after))} pages")
    print(f"c4_like: {dict(collections.Counter(column(run, 'decisions/filtered/c4', 'verdict')).most_common())}")


def tell_arxiv(run: pathlib.Path, bulk: pathlib.Path) -> None:
    """How many inputs and macros of their authors' the submissions hold, and whether the text still has any."""
    inputs, macros = 0, set()
    with tarfile.open(bulk) as archive:
        for paper in archive:
            with tarfile.open(fileobj=archive.extractfile(paper), mode="r:gz") as files:
                for info in files:
                    if info.name.endswith(".tex"):
                        source = strip_comments(decode(files.extractfile(info).read()))
                        inputs += len(INPUT.findall(source))
                        macros |= set(MACRO.findall(source))
    texts = column(run, "documents/arxiv", "text")
    left = {name for text in texts for name in re.findall(r"\\([A-Za-z]+)", text)} & macros
    print(f"arxiv: {len(texts)} documents, {sum(map(len, texts)):,} characters; {inputs} inputs in the submissions,", end=" ")
    print(f"{sum(len(INPUT.findall(text)) for text in texts)} in the text;", end=" ")
    print(f"{len(macros)} macros without arguments in the submissions, in the text: {sorted(left)}")


def c4_like(source: pathlib.Path, target: pathlib.Path) -> None:
    """The whole visible text of every page, as a WET file has it, in rows of the published schema (text, timestamp, url)."""
    with gzip.open(target, "wt") as out:
        for url, date, html in pages(source):
            row = {"text": visible_text(html), "timestamp": date, "url": url}
            out.write(json.dumps(row) + "\n")


def arxiv(source: pathlib.Path, target: pathlib.Path) -> None:
    """Every chapter of the Stacks project with its preamble is a submission; so is the HoTT book with its macros and chapters."""
    files = {}
    with tarfile.open(source) as archive:
        for info in archive:
            stream = archive.extractfile(info) if info.name.endswith((".tex", ".cls", ".bib")) else None
            if stream:
                files[info.name] = stream.read()
    stacks = {name.removeprefix("stacks-latex/"): text for name, text in files.items() if name.startswith("stacks-latex/")}
    hott = {name.removeprefix("hott-latex/"): text for name, text in files.items() if name.startswith("hott-latex/")}
    shared = {name: text for name, text in stacks.items() if name in STACKS_SHARED}
    chapters = sorted(name for name, text in stacks.items() if b"\\begin{document}" in text and name not in shared)
    submissions = {f"2301/2301.{number:05d}.gz": {name: stacks[name], **shared} for number, name in enumerate(chapters)}
    submissions["1308/1308.0729.gz"] = {name: text for name, text in hott.items() if name == BOOK or not name.startswith(APART)}
    with tarfile.open(target, "w") as out:
        for name, members in sorted(submissions.items()):
            add(out, name, gzip.compress(tarred(members), mtime=0))


def tarred(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as out:
        for name, content in sorted(members.items()):
            add(out, name, content)
    return sink.getvalue()


def add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    out.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    if sample.missing(packages.cache_folder()):
        sys.exit("the dumps of Wikipedia are not in the cache: run winnow demo once")
    main()
