"""Engine files, and the one line that a user gets from a worker's traceback."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from pipelines import engine
from pipelines.beam_parts import Each
from pipelines.errors import CheckError, UserError
from tests.runs import ONE_WORKER, REPOSITORY, TWO_THREADS, run_build

RUNNERS = "FnApiRunner, BundleBasedDirectRunner, DataflowRunner, PortableRunner, FlinkRunner, SparkRunner"
DIRECT = "apache_beam.runners.direct.direct_runner.DirectRunner"
DATAFLOW = "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"
TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 1, in process
    yield from work(element)
{first}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker.py", line 2, in invoke
    raise new
{last}
"""


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("pipelines.errors.UserError: x.gz: cut short [while running 'Extract-ptransform-7']", UserError("x.gz: cut short")),
        ("RuntimeError: pipelines.errors.CheckError: counts differ [while running 'Write']", CheckError("counts differ")),
        (
            "RuntimeError: OSError: [Errno 28] No space left on device: '/run/x' [while running 'Write']",
            OSError(28, "No space left on device", "/run/x"),
        ),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x'", FileNotFoundError(2, "No such file or directory", "x")),
        ("ValueError: web/p-1: odd [while running 'Annotate']", RuntimeError("the test job failed: ValueError: web/p-1: odd")),
        ("KeyError: 'text'\n  with more\n  below", RuntimeError("the test job failed: KeyError: 'text'\n  with more\n  below")),
    ],
)
def test_the_last_error_of_a_traceback_speaks(last, expected):
    found = engine.failure("test", TRACEBACK.format(first="KeyError: 1", last=last))
    assert (type(found), str(found)) == (type(expected), str(expected))


class _Fails:
    def start(self):
        def work(element):
            raise UserError(f"{element}: cannot be read; give another")

        return work


@pytest.mark.parametrize("where", [ONE_WORKER, TWO_THREADS])
def test_what_a_worker_raises_arrives_as_it_was(where, capfd):
    with pytest.raises(UserError, match=r"^x\.gz: cannot be read; give another$"):
        engine.run(where, "test", lambda pipeline: pipeline | beam.Create(["x.gz"]) | beam.ParDo(Each(_Fails())))
    assert capfd.readouterr() == ("", "")  # no traceback besides


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runner: x", r"an engine file is `options:` with Beam's options by name"),
        ("options: [a]", r"an engine file is `options:`"),
        ("options: {a: 1}\nmore: 2", r"an engine file is `options:`"),
        ("options: {a: [", r"not an engine file: while parsing"),
        ("\x00", r"not an engine file"),
    ],
)
def test_a_file_that_is_no_engine_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "e.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        engine.load_engine(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["local", "dataflow", "flink"])
def test_a_shipped_engine_goes_by_its_name_alone_as_a_recipe_does(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder is no engine file
    assert engine.load_engine(name).options == engine.load_engine(f"{name}.yaml").options


def test_an_unknown_engine_names_those_that_are_there():
    with pytest.raises(UserError) as caught:
        engine.load_engine("spark.yaml")
    assert str(caught.value) == "spark.yaml: no such engine file; shipped ones are local.yaml, dataflow.yaml, flink.yaml"


def test_options_become_flags_and_the_command_line_wins(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("options: {runner: DataflowRunner, experiments: [a, b], streaming: true, no_auth: false, region: null}")
    found = engine.load_engine(str(path), ["--runner=FnApiRunner"])
    assert found.options == ("--runner=DataflowRunner", "--experiments=a", "--experiments=b", "--streaming", "--runner=FnApiRunner")
    assert found.runner == "FnApiRunner"
    assert found.is_local


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flink.yaml", [], "flink.yaml: PortableRunner needs --job_endpoint; set it in the engine file or after --"),
        (
            "flink.yaml",
            ["--job_endpoint=localhost:8099"],
            "flink.yaml: --environment_config must name an image with winnow; or give --environment_type=LOOPBACK",
        ),
        ("dataflow.yaml", ["--project=p"], "dataflow.yaml: DataflowRunner needs --region; set it in the engine file or after --"),
        (
            "local.yaml",
            ["--runner", "dataflow"],
            "local.yaml: DataflowRunner needs --project; set it in the engine file or after --",
        ),
        (
            "dataflow.yaml",
            ["--project", "p", "--region", "r", "--temp_location", "/tmp/x"],
            "dataflow.yaml: --temp_location=/tmp/x must be a gs:// path",
        ),
        (
            "local.yaml",
            ["--runner=portable", "--job_endpoint", "localhost:8099"],  # Beam's default for a job server is its own image
            "local.yaml: --environment_config must name an image with winnow; or give --environment_type=LOOPBACK",
        ),
        ("local.yaml", ["--runner=DirectRunner"], f"local.yaml: --runner=DirectRunner is none of {RUNNERS}"),
        ("local.yaml", ["--runner", "prism"], f"local.yaml: --runner=prism is none of {RUNNERS}"),
        ("local.yaml", [f"--runner={DIRECT}"], f"local.yaml: --runner={DIRECT} is none of {RUNNERS}"),
        ("local.yaml", ["--runner=FnApiRuner"], f"local.yaml: --runner=FnApiRuner is none of {RUNNERS}"),
        (
            "local.yaml",
            ["--direct_num_wrokers=8"],
            "local.yaml: Beam has no option --direct_num_wrokers; did you mean --direct_num_workers?",
        ),
        ("local.yaml", ["8"], "local.yaml: Beam has no option 8"),
        ("local.yaml", ["--direct_num_workers", "x"], "local.yaml: argument --direct_num_workers: invalid int value: 'x'"),
    ],
)
def test_an_engine_that_cannot_work_is_refused(name, options, message):
    with pytest.raises(UserError) as caught:
        engine.check(engine.load_engine(name, options))
    assert str(caught.value) == message


@pytest.mark.parametrize("given", ["DataflowRunner", "dataflowrunner", "dataflow", DATAFLOW])
@pytest.mark.parametrize("form", ["--runner={}", "--runner {}"])
def test_a_runner_is_the_one_that_beam_takes(given, form):
    """However it is written: held to the runner that Beam itself makes of the same options."""
    flags = form.format(given).split()
    options = PipelineOptions(flags).view_as(StandardOptions)
    assert type(create_runner(options.runner)).__name__ == "DataflowRunner"
    found = engine.load_engine("local.yaml", flags)
    assert (found.runner, found.is_local) == ("DataflowRunner", False)
    with pytest.raises(UserError, match="workers cannot reach this machine's disk"):
        engine.check_reach(found, ["/runs/demo"])


def test_what_only_a_job_server_knows_is_left_to_it():
    more = ["--job_endpoint=localhost:8099", "--environment_type=LOOPBACK", "--checkpointing_interval=9"]
    engine.check(engine.load_engine("flink.yaml", more))


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "beam_config" / "engines").glob("*.yaml")))
def test_shipped_engines_are_those_that_the_message_names(name):
    assert name in engine._SHIPPED
    assert engine.load_engine(name).options


def test_workers_elsewhere_cannot_reach_this_disk(tmp_path):
    """Refused for Dataflow, before the run directory is made; for a cluster of one's own it may be a shared file system."""
    dataflow = engine.load_engine("dataflow.yaml")
    with pytest.raises(UserError, match="Dataflow's workers cannot reach this machine's disk; give a gs:// path") as caught:
        run_build(tmp_path, tmp_path / "run", engine=dataflow)
    assert str(caught.value).startswith(f"{tmp_path / 'run'}: ")
    assert not (tmp_path / "run").exists()
    engine.check_reach(dataflow, ["gs://bucket/run"])
    engine.check_reach(engine.load_engine("flink.yaml"), [str(tmp_path)])
    engine.check_reach(engine.load_engine(), [str(tmp_path)])


def test_nor_can_they_read_the_runs_that_a_corpus_is_held_against(built, inputs):
    """Refused before anything is asked of the bucket."""
    dataflow = engine.load_engine("dataflow.yaml")
    with pytest.raises(UserError) as caught:
        run_build(inputs, "gs://bucket/run", [f"against=[{built}]"], engine=dataflow)
    assert str(caught.value) == f"{built}: Dataflow's workers cannot reach this machine's disk; give a gs:// path"
