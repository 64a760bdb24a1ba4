"""`llama.yaml` over real data of every source: `python bench/llama_build.py DATA [--tokens 4000000]`.

DATA holds web/, warc/, stackexchange/, latex/ and books/; the dumps of Wikipedia come out of the embedded sample (run `winnow demo`
once), code out of this environment's site-packages. None of it is what LLaMA read: common_crawl is saved pages and test archives,
c4 is news groups cleaned by C4's rules, arxiv two LaTeX books packed as submissions, books are texts of eight languages. Printed:
conservation by source, and the mixture asked against got.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pathlib
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import zipfile

from pipelines import packages, sample
from pipelines.build import build
from pipelines.engine import load_engine
from pipelines.recipe_file import load

REPOSITORIES = ("attrs", "click", "httpx", "jinja2", "rich", "torch/nn", "numpy/lib", "pyarrow", "pygments", "typer", "yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=4_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        lay_out(chosen.data, folder)
        smaller = [f"mixture.tokens={chosen.tokens}", "tokens.shards=2", "fit.perplexity.min_tokens=20000"]
        recipe, _ = load("llama", [*smaller, "sources.c4.clean=c4"])
        accounts = build(recipe, str(folder), str(folder / "run"), load_engine("local.yaml"), print)
        print(json.dumps(accounts.to_json()["sources"], indent=1))
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
    for path in [*sorted((data / "web").glob("*.warc.gz")), *sorted((data / "warc").glob("*.warc.gz"))]:
        shutil.copy(path, folder / "common_crawl")
    with gzip.open(data / "web" / "newsgroups20.jsonl.gz") as lines, gzip.open(folder / "c4" / "c4_like.json.gz", "wb") as out:
        shutil.copyfileobj(lines, out)
    for path in sorted((data / "stackexchange").iterdir()):
        shutil.copy(path, folder / "stackexchange")
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


def arxiv(source: pathlib.Path, target: pathlib.Path) -> None:
    """Every .tex file with a section as a submission of its own."""
    with tarfile.open(source) as archive, tarfile.open(target, "w") as out:
        papers = [member for member in archive if member.name.endswith(".tex") and member.size]
        for number, member in enumerate(sorted(papers, key=lambda one: one.name)):
            stream = archive.extractfile(member)
            content = gzip.compress(stream.read() if stream else b"", mtime=0)
            info = tarfile.TarInfo(f"2301/2301.{number:05d}.gz")
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    if sample.missing(packages.cache_folder()):
        sys.exit("the dumps of Wikipedia are not in the cache: run winnow demo once")
    main()
