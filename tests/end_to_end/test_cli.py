"""The command as a user meets it: exit codes, one line an error, JSON documents with stable keys, and a start without weight."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines import cli
from tests import corpus
from tests.runs import REPOSITORY, command

HEAVY = {"apache_beam", "torch", "pyarrow", "numpy", "numba", "yaml", "fasttext", "tokenizers", "datasets", "jinja2"}


@pytest.fixture
def winnow(monkeypatch, capsys):
    """Runs the command in this process: winnow(*arguments, stdin=bytes) -> (exit code, standard output, standard error)."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["winnow", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, error = capsys.readouterr()
        return code, out, error

    return run


# -- a light start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["score", "--help"], ["explain", "--help"], []])
def test_help_imports_nothing_heavy(arguments):
    """What makes `--help` slow is imports; asserted by the modules that are loaded, not by a clock."""
    code = f"import sys; sys.argv = ['winnow', *{arguments!r}]\nfrom pipelines.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += f"loaded = {HEAVY!r} & set(sys.modules)\nassert not loaded, loaded\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: winnow" in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["report", "RUN"], ["explain", "RUN", "w.jsonl#3"], ["diff", "RUN", "RUN"]])
def test_looking_at_a_run_starts_no_beam(arguments, built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    arguments = [str(tmp_path / "run") if one == "RUN" else one for one in arguments]
    code = f"import sys; sys.argv = ['winnow', *{arguments!r}]\nfrom pipelines.cli import main\nmain()\n"
    code += "assert 'apache_beam' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_command(winnow):
    code, out, _ = winnow("--help")
    assert code == 0
    for name in ("plan", "recipes", "build", "verify", "explain", "diff", "report", "score", "demo", "models"):
        assert f" {name} " in out
    assert "--debug" in out
    assert "-- --direct_num_workers=4" in winnow("build", "--help")[1]


def test_the_version_is_that_of_pyproject(winnow):
    stated = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert winnow("--version") == (0, f"winnow {stated}\n", "")


def test_shipped_recipes_are_named_and_printed_as_they_are(winnow):
    """Reference: the files of beam_config/recipes, and that each is read back as a recipe."""
    folder = REPOSITORY / "beam_config" / "recipes"
    code, out, _ = winnow("recipes")
    assert (code, out.split()) == (0, sorted(path.stem for path in folder.glob("*.yaml")))
    for name in out.split():
        assert winnow("recipes", name) == (0, (folder / f"{name}.yaml").read_text(), "")
    assert winnow("recipes", "none") == (2, "", "winnow: none: no shipped recipe; there are glam, llama, sample\n")


def test_processes_that_the_command_starts_take_no_module_of_the_folder_where_it_is_called(tmp_path):
    """As every nanoGPT checkout has a train.py. Beam's workers are started so too: by `python -m`, in the command's environment."""
    (tmp_path / "train.py").write_text("raise SystemExit('the train.py of the folder ran')")
    code = "import subprocess, sys\nsys.path = [folder for folder in sys.path if folder]\n"  # as for the installed command
    code += "from pipelines.cli import main\nsys.argv = ['winnow', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "sys.exit(subprocess.run([sys.executable, '-m', 'train.child']).returncode)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- errors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["verify", "NOWHERE"], 2, "no complete run (manifest.json is missing); run winnow build"),
        (["report", "NOWHERE"], 2, "no complete run (manifest.json is missing); run winnow build"),
        (["explain", "NOWHERE", "x#0"], 2, "no complete run"),
        (["explain", "RUN", "nobody"], 2, "no document or reject goes by 'nobody'"),
        (["diff", "RUN", "NOWHERE"], 2, "NOWHERE: no complete run"),
        (["score", "--model", "NOWHERE"], 2, "no complete run (manifest.json is missing); run winnow build"),
        (["score", "NOWHERE/x.jsonl"], 2, "x.jsonl: No such file or directory; give a file of JSON lines, or -"),
        (["score", "--variant", "filtered"], 2, "--variant needs --model DIR"),
        (["score", "--model", "RUN", "--variant", "x"], 2, "no variant 'x'; it has unfiltered, filtered"),
        (["plan", "nowhere.yaml"], 2, "nowhere.yaml: no such recipe"),
        (["build", "nowhere.yaml", "--run", "x"], 2, "nowhere.yaml: no such recipe"),
        (["build", "nowhere.yaml"], 2, "--run"),
        (["explode"], 2, "explode"),
        (["verify", "RUN", "--depe"], 2, "--depe"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(arguments, code, says, winnow, built, tmp_path):
    places = {"RUN": str(built), "NOWHERE": str(tmp_path / "NOWHERE")}
    found, out, error = winnow(*(one.replace("NOWHERE", places["NOWHERE"]) if one != "RUN" else built for one in arguments))
    assert (found, out) == (code, "")
    assert error.count("\n") == 1
    assert error.startswith("winnow: ")
    assert says in error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("variants.filtered.default.rules=[gophr]", "gophr"),
        ("variants.filtered.default.rules={gopher: {word.low: 30}}", "word.low"),
        ("variants.filtered.default.languages={keep: [eng]}", "did you mean 'en'?"),
        ("evaluations={quiz: none.jsonl}", "evaluations.quiz"),
        ("terms={rude: none.txt}", "terms.rude"),
        ("bad_words=none.txt", "bad_words"),
        ("fit.tokenizer.file=none.json", "mend fit.tokenizer.file"),
        ("remove=none.txt", "none.txt"),
        ("against=[none]", "none"),
        ("sources.web.blocklist=none.txt", "none.txt"),
        (None, "the language identification model is missing; run winnow models fetch"),
    ],
)
def test_a_plan_refuses_what_a_build_refuses(change, says, winnow, inputs, tmp_path, monkeypatch):
    """Reference: the line and the code of the build."""
    (tmp_path / "r.yaml").write_text(corpus.recipe(inputs))
    changes = ["--set", change] if change else []
    if change is None:
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "none"))
    planned = winnow("plan", tmp_path / "r.yaml", *changes)
    assert planned == winnow("build", tmp_path / "r.yaml", "--run", tmp_path / "run", *changes)
    assert planned[:2] == (2, "")
    assert says in planned[2]
    assert not (tmp_path / "run").exists()


def test_a_plan_checks_an_engine_where_one_is_given(winnow, inputs, tmp_path):
    (tmp_path / "r.yaml").write_text(corpus.recipe(inputs))
    for options, says in (
        (["--engine", "dataflow.yaml"], "dataflow.yaml: DataflowRunner needs --project"),
        (["--", "--direct_num_wrkers=4"], "local.yaml: Beam has no option --direct_num_wrkers; did you mean --direct_num_workers?"),
    ):
        code, out, error = winnow("plan", tmp_path / "r.yaml", *options)
        assert (code, out) == (2, "")
        assert says in error


def test_a_damaged_run_is_exit_code_1_and_names_the_file(winnow, built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    (tmp_path / "run" / "stats.json").write_text("{}")
    (tmp_path / "run" / "report.html").unlink()
    code, out, error = winnow("verify", tmp_path / "run")
    assert code == 1
    assert out.splitlines()[-2:] == [
        "FAULT report.html is missing; build again",
        next(line for line in out.splitlines() if line.startswith("FAULT stats.json is not what was written")),
    ]
    assert error == f"winnow: {tmp_path / 'run'}: report.html is missing; build again (and 1 more)\n"


def test_a_traceback_only_with_debug():
    plain, debug = (command(["verify", "/nowhere", *more]) for more in ([], ["--debug"]))
    assert (plain.returncode, plain.stderr.count("\n")) == (2, 1)
    assert "Traceback" not in plain.stderr
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "UserError: /nowhere: no complete run" in debug.stderr


def test_a_fault_of_the_program_is_one_line_that_names_the_way_to_the_whole_story(winnow, built, monkeypatch):
    monkeypatch.setattr("pipelines.verify.verify", lambda *arguments: 1 / 0)
    code, _, error = winnow("verify", built)
    assert (code, error) == (1, "winnow: ZeroDivisionError: division by zero (run again with --debug for the whole story)\n")


def test_an_interrupt_is_exit_code_130_and_says_whether_the_command_goes_on(winnow, built, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    for module, name, said in (
        ("pipelines.verify.verify", "verify", "winnow: interrupted"),
        ("pipelines.purge.purge", "purge", "winnow: interrupted; the same command goes on where it stopped"),
    ):
        monkeypatch.setattr(module, interrupt)
        code, _, error = winnow(name, built)
        assert (code, error.strip().rpartition("\n")[2]) == (130, said)


# -- JSON -------------------------------------------------------------------------------------------------------------------


def test_json_is_one_document_with_stable_keys(winnow, built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    run = tmp_path / "run"

    def printed(*arguments):
        code, out, error = winnow(*arguments, "--json")
        assert (code, error) == (0, "")
        return json.loads(out)

    assert list(printed("verify", run)) == ["files", "bytes", "faults", "decoded", "languages", "records", "purged"]
    assert list(printed("diff", run, built)) == ["recipe", "counts", "distributions", "documents", "changes", "variants"]
    assert printed("report", run) == {"report": f"{run}/report.html"}
    (found,) = printed("explain", run, "w.jsonl#3")
    assert list(found) == ["document", "signals", "clusters", "verdicts", "removed_by", "purged"]
    assert list(found["verdicts"][0]) == [
        "variant", "verdict", "stage", "value", "threshold", "duplicate_of", "split",
        "duplicate_run", "keeper", "prefix", "position", "offset",
    ]  # fmt: skip


def test_a_failed_check_prints_its_json_too(winnow, built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    code, out, _ = winnow("verify", tmp_path / "run", "--json")
    assert code == 1
    assert json.loads(out)["faults"] == ["report.html is missing; build again"]


def test_plan_as_json_is_the_resolved_recipe_with_its_tasks(winnow, inputs, tmp_path):
    (tmp_path / "r.yaml").write_text(corpus.recipe(inputs))
    code, out, _ = winnow("plan", tmp_path / "r.yaml", "--set", "seed=7", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["recipe"]["seed"], list(found)) == (7, ["recipe", "sources", "blocklists", "tasks"])
    code, out, _ = winnow("plan", tmp_path / "r.yaml")
    assert "variant filtered (dedup: exact, near)" in out


# -- what is printed --------------------------------------------------------------------------------------------------------


def test_explain_tells_where_a_document_lies(winnow, built):
    code, out, _ = winnow("explain", built, "w.jsonl#3")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith("  wiki  w.jsonl#3")
    assert lines[1] == "  title: Title 3"
    assert any(line.startswith("filtered: kept, document ") for line in lines)


def test_diff_of_equal_runs_says_so(winnow, built):
    assert winnow("diff", built, built) == (0, "documents: 250 in both, 0 only left, 0 only right\n\nno difference\n", "")


def test_score_is_a_filter_that_goes_on_after_a_bad_line(winnow, built):
    lines = b'{"text": "The history of the river."}\nbad\n{"text": "Buy cheap coupons."}\n'
    code, out, error = winnow("score", "--model", built, "--variant", "filtered", "--explain", stdin=lines)
    first, bad, last = map(json.loads, out.splitlines())
    assert code == 1
    assert error == "winnow: standard input: 1 of 3 lines could not be judged; each has its `error` in the output\n"
    assert (bad["line"], bad["error"]) == (2, "malformed_json")
    for one in (first, last):
        assert list(one) == ["language", "language_score", "quality", "signals", "verdict", "keep_probability", "contributions"]
    assert first["quality"] > last["quality"]


def test_score_reads_a_file(winnow, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "One."}\n')
    code, out, error = winnow("score", tmp_path / "x.jsonl")
    assert (code, error, json.loads(out)["signals"]["words"]) == (0, "", 1)


def test_a_reader_that_has_seen_enough_ends_score_in_silence(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "One."}\n' * 5000)
    pipe = f"'{sys.executable}' -m pipelines.cli score '{tmp_path}/x.jsonl' | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["language"]


def test_build_ends_with_the_report_and_with_an_alarm(winnow, inputs, tmp_path):
    """A rule that no page of web passes: the build says so at its end, on the page and in its JSON."""
    recipe = Path(tmp_path / "r.yaml")
    text = corpus.recipe(inputs).split("fit:")[0].replace("paragraphs: true", "paragraphs: false")
    variant = "variants: {strict: {default: {rules: {gopher: {words.low: 90000}}}, sources: {wiki: {rules: none}}}}"
    recipe.write_text(f"{text}fit: {{tokenizer: {{vocab_size: 300, sample_mb: 1}}}}\n{variant}\n")
    code, out, error = winnow("build", recipe, "--run", tmp_path / "run")
    alarm = "strict keeps 0 of 175 documents of web; 175 are dropped by gopher_words"
    assert out.splitlines()[-2:] == [f"report: {tmp_path}/run/report.html", f"ALARM {alarm}"]
    assert code == 1
    way = "mend the recipe, or give a source that may go `alarm: false`"
    assert error.endswith(f"winnow: {tmp_path}/run: built, but {alarm}; {way}\n")
    assert alarm in (tmp_path / "run" / "report.html").read_text()
    assert alarm in (tmp_path / "run" / "card.md").read_text()
    code, out, error = winnow("build", recipe, "--run", tmp_path / "run", "--json")
    found = json.loads(out)
    assert (code, list(found)) == (1, ["sources", "variants", "alarms", "report"])
    assert found["alarms"] == [alarm]
    assert "redone" in error  # progress goes to the other stream
    code, out, _ = winnow("build", recipe, "--run", tmp_path / "run", "--set", "sources.web.alarm=false")
    assert (code, "ALARM" in out) == (0, False)  # it is meant
    redone = {line.split()[0] for line in out.splitlines() if " redone, " in line and " 0 of " not in line}
    assert redone == {"fit", "report"}


def test_beams_word_on_bigquery_is_kept_from_the_user_and_other_warnings_are_not():
    """As Beam logs it where its extra for Google Cloud is not installed: through the root logger."""
    code = (
        "import logging, sys\n"
        "from pipelines import cli\n"
        "sys.argv = ['winnow', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "logging.warning('apitools not found, and bigquery client libraries are not available')\n"
        "logging.warning('another')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "WARNING:root:another\n")


def test_a_line_is_seen_in_a_pipe_when_it_is_written():
    """Reference: what a terminal shows. The command then waits for its input."""
    code = "import sys, time, typer\nfrom pipelines import cli\n"
    code += "@cli.app.command()\ndef slow():\n    print('first')\n    sys.stdin.read()\n"
    code += "sys.argv = ['winnow', 'slow']\ncli.main()\n"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "first\n"
        process.communicate()
    assert process.returncode == 0
