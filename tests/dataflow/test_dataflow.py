"""Every Beam job of a build, submitted by the real DataflowRunner to a loopback service; a whole run on gs:// likewise.

What is asserted: the job that was asked for, and the pipeline that was staged, parsed by Beam's own protocol classes. That a
Dataflow worker runs it is not shown here: there is none.
"""

from __future__ import annotations

import dataclasses
import os

import pytest

pytest.importorskip("google.cloud.storage", reason="needs the extra `dataflow`")

import apache_beam as beam
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines import annotate, cluster, engine, extract, fit, select, select_settings, tokenize
from pipelines.beam_parts import Each, spread
from pipelines.errors import UserError
from pipelines.parts import Part
from pipelines.plan import Task
from pipelines.recipe_file import parse
from pipelines.records import Input
from pipelines.report.statistics import StatisticsWorker
from pipelines.store import Store
from tests.dataflow.loopback import Service

RECIPE = parse(
    """
name: cloud
sources:
  web: {format: jsonl, paths: [gs://bucket/in/web.jsonl.gz]}
  wiki: {format: jsonl, paths: [gs://bucket/in/wiki.jsonl.gz], paragraphs: true}
fit: {quality: {curated: [wiki], web: [web]}}
near: {bands: 14, rows: 8}
variants:
  unfiltered: {dedup: [exact]}
  filtered: {dedup: [exact, near], default: {quality: {draw: pareto, keep_rate: 0.3}}}
""",
    "cloud",
)
STORE = Store("gs://bucket/run")
PARTS = tuple(Part(i, source, f"part-{i}-00000", 10, 1000, "0" * 64) for i, source in enumerate(("web", "wiki")))
TASK = Task("web", "part-web", (Input("web.jsonl.gz", "gs://bucket/in/web.jsonl.gz", 10, "0" * 64),))
SHARD = tokenize.Shard("web", 0, 1, PARTS[:1], (("filtered", "key"),))
SELECT = select_settings.Settings.of(RECIPE, list(RECIPE.variants), {})
MIXED = dataclasses.replace(SELECT, wanted={"web": 1000, "wiki": 500})

STATISTICS = StatisticsWorker(STORE, tuple(RECIPE.variants), RECIPE.seed)

JOBS = {
    "extract": (lambda p: extract.wire(p, STORE, RECIPE, [TASK]), 1),
    "cluster": (lambda p: cluster.wire(p, STORE, RECIPE, PARTS, "key"), 17),
    "sample": (lambda p: fit.wire(p, STORE, RECIPE, [(PARTS[0], fit.Shares(0.5, 0.5, 0.0), "key")]), 1),
    "annotate": (lambda p: annotate.wire(p, STORE, RECIPE, [(PARTS[0], "key")]), 1),
    "select": (lambda p: select.wire(p, STORE, SELECT, PARTS, {"filtered": "a", "unfiltered": "b"}), 4),
    "select-mixture": (lambda p: select.wire(p, STORE, MIXED, PARTS, {"filtered": "a", "unfiltered": "b"}), 6),
    "tokenize": (lambda p: tokenize.wire(p, STORE, [SHARD], tokenize.Vocabulary(300, 299)), 1),
    "statistics": (lambda p: spread(p, "Parts", [(PARTS[0], "key")]) | beam.ParDo(Each(STATISTICS)), 1),
}


@pytest.fixture
def service(monkeypatch):
    import apache_beam.internal.gcp.auth as auth

    started = Service()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", started.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    # Anonymous: no look for credentials and no metadata server. `--no_auth` alone does not keep Beam from looking.
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    yield started
    started.shutdown()
    started.server_close()


def _engine(service, *extra):
    options = [
        f"--dataflow_endpoint={service.url}",
        "--project=my-project",
        "--region=us-central1",
        "--no_auth",
        "--temp_location=gs://bucket/temp",
        "--staging_location=gs://bucket/staging",
        "--sdk_container_image=registry.example/winnow:1",
        "--num_workers=4",
    ]
    return engine.load_engine("dataflow.yaml", [*options, *extra])


@pytest.mark.parametrize("name", sorted(JOBS))
def test_every_job_is_accepted_as_the_engine_file_describes_it(service, name):
    wire, shuffles = JOBS[name]
    engine.run(_engine(service), name, wire)
    (job,) = service.jobs.values()
    pool = job["environment"]["workerPools"][0]
    assert job["name"].startswith(f"winnow-{name}-")
    assert pool["machineType"] == "n2-standard-8"
    assert pool["numWorkers"] == 4
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 100
    assert "registry.example/winnow:1" in str(pool)
    staged = next(data for (_, path), data in service.objects.items() if path.endswith("pipeline.pb"))
    pipeline = beam_runner_api_pb2.Pipeline.FromString(staged)
    urns = [transform.spec.urn for transform in pipeline.components.transforms.values()]
    assert urns.count("beam:transform:group_by_key:v1") == shuffles
    assert not [path for _, path in service.objects if "main_session" in path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temp_location=/tmp/x"], "must be a gs:// path"),
        (["--project="], "DataflowRunner needs --project"),
        (["--region="], "DataflowRunner needs --region"),
    ],
)
def test_an_engine_that_cannot_work_is_refused_before_anything_runs(service, options, message):
    with pytest.raises(UserError, match=message):
        engine.run(_engine(service, *options), "extract", JOBS["extract"][0])
    assert service.jobs == {}
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ
