"""The documentation against the program: every command in it runs and prints what the page shows; every key and reason is there.

A ```console block holds commands, each on a line that starts with `$ `, and below it what it prints: those lines must stand in the
output, in this order; `...` stands for lines that are left out, and seconds may differ. The commands run in order, page by
page, in a folder with the finished demo under runs/demo.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import recipe as recipes
from pipelines import recipe_compare
from pipelines.schema import Reason, RejectReason
from quality import rules
from tests.runs import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
SERVED = "service.md"  # whose commands ask a service that runs meanwhile: tests/service/test_docs.py
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
_SECONDS = re.compile(r"\d+(\.\d+)? s\b")
# `make` would install into the checkout; these targets are what CI itself runs.
_NOT_HERE = ("make ",)


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """(command, lines that the page shows below it) of a page."""
    found: list[tuple[str, list[str]]] = []
    for block in _BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page) and page.name != SERVED], ids=lambda page: page.name)
def test_every_command_runs_and_prints_what_the_page_shows(page, demo_run, tmp_path):
    (tmp_path / "runs").mkdir()
    if any(" compare " in command for command, _ in commands(page)):  # which writes into the run
        shutil.copytree(demo_run, tmp_path / "runs" / "demo")
    else:
        (tmp_path / "runs" / "demo").symlink_to(demo_run)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command, shown in commands(page):
        if command.startswith(_NOT_HERE):
            continue
        environment = {**os.environ, "PATH": path, "COLUMNS": "100"}
        shell = ["bash", "-c", command]
        done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        printed = [_SECONDS.sub("N s", line.rstrip()) for line in (done.stdout + done.stderr).splitlines()]
        expected = [_SECONDS.sub("N s", line.rstrip()) for line in shown if line.strip() not in ("", "...")]
        missing = _first_missing(expected, printed)
        assert missing is None, f"$ {command}\nshould print: {missing}\nprinted:\n" + "\n".join(printed)
        failed = expected and expected[-1].startswith("winnow: ")
        assert bool(done.returncode) == bool(failed), f"$ {command} ended with {done.returncode}: {done.stderr}"


def _first_missing(expected: list[str], printed: list[str]) -> str | None:
    """The first expected line that does not stand in the output behind those before it."""
    at = 0
    for line in expected:
        if line not in printed[at:]:
            return line
        at = printed.index(line, at) + 1
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in _LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_key_of_the_recipe_is_documented():
    text = (REPOSITORY / "docs" / "recipe.md").read_text()
    models = (recipes.Recipe, recipes.Source, recipes.Limits, recipes.Near, recipes.Fit, recipes.QualityFit)
    models += (recipes.TokenizerFit, recipes.PerplexityFit, recipes.Mixture, recipes.Variant, recipes.Policy, recipes.Languages)
    models += (recipes.Draw, recipes.Tokens, recipes.Against)
    for model in models:
        for key in model.model_fields:
            assert re.search(rf"\b{key}\b", text), f"{model.__name__}.{key}"


def test_every_key_of_a_comparison_is_documented():
    text = (REPOSITORY / "docs" / "comparison.md").read_text()
    for model in (recipe_compare.Compare, recipe_compare.EvaluationSet, recipe_compare.Tasks, recipe_compare.Bias):
        for key in model.model_fields:
            assert f"`{key}`" in text, f"{model.__name__}.{key}"


def test_every_reason_is_documented():
    """Verdicts in docs/recipe.md (rules by their family), rejects in docs/bad-input.md."""
    verdicts = (REPOSITORY / "docs" / "recipe.md").read_text()
    for reason in Reason:
        assert f"`{reason}`" in verdicts
    for family in rules.FAMILIES:
        assert f"`{family}_*`" in verdicts
    rejects = (REPOSITORY / "docs" / "bad-input.md").read_text()
    for reason in RejectReason:
        assert f"`{reason}`" in rejects
