"""Runs a Beam pipeline on an engine file: options, progress, errors. The only module that knows runners.

An engine file says HOW to run (runner, workers, threads or processes, cloud project); nothing in it enters a key or changes
a byte of the output. Locally `FnApiRunner` is named outright: Beam's default tries to download another runner and falls
back silently. Threads are the mode that scales on one machine, since the kernels release the interpreter lock. What options say
is told by Beam's own parser, and one that it does not know is refused, since Beam would pass over it.

Beam's local runner blocks and shows no metrics while it runs, so progress is read from the parts that have appeared. What
fails in a worker comes back as the text of a traceback, after a log of the same: `run` raises the one error that stands at its
end, and keeps the rest as its cause, for --debug.
"""

from __future__ import annotations

import builtins
import difflib
import functools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from fsspec.utils import get_protocol

from pipelines.errors import CheckError, UserError

if TYPE_CHECKING:
    import argparse

    import apache_beam as beam

_LOCAL = ("FnApiRunner", "BundleBasedDirectRunner")
_RUNNERS = (*_LOCAL, "DataflowRunner", "PortableRunner", "FlinkRunner", "SparkRunner")  # others of Beam's download one
_DOCKER = ("DOCKER", "beam:env:docker:v1")
_NEEDED = {  # options without which a runner cannot work
    "DataflowRunner": ("project", "region", "temp_location"),
    "PortableRunner": ("job_endpoint",),
}
_SHIPPED = ("local.yaml", "dataflow.yaml", "flink.yaml")
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Engine:
    """Beam options in force: the engine file's, then those given after `--` on the command line, which win."""

    name: str
    options: tuple[str, ...]

    @property
    def runner(self) -> str:
        """The runner by Beam's own spelling: Beam takes any case, with and without `Runner`, and the name of its module."""
        given = self.given("runner") or "FnApiRunner"
        name = given.rpartition(".")[2].lower()
        return next((known for known in _RUNNERS if known.lower() in (name, f"{name}runner")), given)

    @property
    def is_local(self) -> bool:
        return self.runner in _LOCAL

    @property
    def is_service(self) -> bool:
        """Whether jobs go to a job server, which has options of its own that Beam asks it for."""
        return not self.is_local and self.runner != "DataflowRunner"

    def given(self, option: str) -> Any:
        """The value of one of Beam's options; None where it is not given."""
        return getattr(_parsed(self).known, option)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What Beam understands of an engine's options."""

    known: argparse.Namespace
    unknown: list[str]
    names: list[str]  # of all options that Beam has


@functools.cache
def _parsed(engine: Engine) -> _Parsed:
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{engine.name}: {message}")

    parser = _BeamArgumentParser(allow_abbrev=False)
    parser.error = refuse
    for section in PipelineOptions.__subclasses__():
        section._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(engine.options)
    return _Parsed(known, unknown, [name for action in parser._actions for name in action.option_strings])


def load_engine(name: str = "local.yaml", extra: Sequence[str] = ()) -> Engine:
    """The engine that a file, or a shipped engine such as "local" or "local.yaml", describes."""
    path, file = Path(name), name if name.endswith(".yaml") else f"{name}.yaml"
    shipped = resources.files("beam_config") / "engines" / file
    try:
        if path.is_file():
            text = path.read_text("utf-8")
        elif re.fullmatch(r"[a-z0-9_]+\.yaml", file) and shipped.is_file():
            text = shipped.read_text("utf-8")
        else:
            raise UserError(f"{name}: no such engine file; shipped ones are {', '.join(_SHIPPED)}")
        tree = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{name}: not an engine file: {' '.join(str(error).split())}") from error
    options = tree.get("options") if isinstance(tree, dict) else None
    if not isinstance(options, dict) or set(tree) != {"options"}:
        raise UserError(f"{name}: an engine file is `options:` with Beam's options by name")
    return Engine(name, tuple(_flags(options)) + tuple(extra))


def _flags(options: dict[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, bool):
            if value:
                yield f"--{key}"
        elif isinstance(value, list):
            yield from (f"--{key}={item}" for item in value)
        elif value is not None:
            yield f"--{key}={value}"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a stage is doing, for the person or program that watches: a bar on a terminal, JSON lines otherwise."""

    stage: str
    total: int
    count: Callable[[], int]  # parts that stand, asked from time to time


def check(engine: Engine) -> None:
    """Refuses an engine that cannot work, before anything runs."""
    parsed, runner = _parsed(engine), engine.runner
    if runner not in _RUNNERS and not _is_own(runner):
        raise UserError(f"{engine.name}: --runner={runner} is none of {', '.join(_RUNNERS)}")
    if parsed.unknown and not engine.is_service:
        first = parsed.unknown[0].partition("=")[0]
        close = difflib.get_close_matches(first, parsed.names, 1)
        raise UserError(f"{engine.name}: Beam has no option {first}" + (f"; did you mean {close[0]}?" if close else ""))
    for option in _NEEDED.get(runner, ()):
        if not engine.given(option):
            raise UserError(f"{engine.name}: {runner} needs --{option}; set it in the engine file or after --")
    environment = engine.given("environment_type") or (_DOCKER[0] if engine.is_service else None)
    if environment in _DOCKER and not engine.given("environment_config"):
        # Beam would start its own image, which has no winnow, and fail in every worker.
        raise UserError(f"{engine.name}: --environment_config must name an image with winnow; or give --environment_type=LOOPBACK")
    if runner == "DataflowRunner" and not engine.given("temp_location").startswith("gs://"):
        # Beam would look for, or create, a default bucket.
        raise UserError(f"{engine.name}: --temp_location={engine.given('temp_location')} must be a gs:// path")


def _is_own(runner: str) -> bool:
    """Whether a runner is a class of the user's, by the name of its module."""
    from apache_beam.options.pipeline_options import StandardOptions

    return "." in runner and runner.rpartition(".")[2] not in StandardOptions.KNOWN_RUNNER_NAMES


def check_reach(engine: Engine, urls: Iterable[str]) -> None:
    """Refuses what lies on this machine's disk where workers are elsewhere. urls: of the run directory, other runs, inputs."""
    if engine.runner != "DataflowRunner":
        return  # a cluster of one's own may well share a file system
    for url in urls:
        if get_protocol(url) in ("file", "local"):
            raise UserError(f"{url}: Dataflow's workers cannot reach this machine's disk; give a gs:// path")


def run(engine: Engine, stage: str, build: Callable[[beam.Pipeline], Any], progress: Progress | None = None) -> None:
    """Runs the pipeline that `build` wires, to its end.

    Errors: what failed in a worker, as one line: UserError, CheckError and OSError as such, anything else as RuntimeError.
    """
    import apache_beam as beam

    from pipelines import local_workers

    check(engine)
    flags = list(engine.options)
    if engine.given("runner") is None:
        flags.append("--runner=FnApiRunner")
    if not engine.is_local:
        flags.append(f"--job_name=winnow-{stage}-{time.strftime('%Y%m%d-%H%M%S')}")
    pipeline = beam.Pipeline(options=local_workers.Options(flags, save_main_session=False))
    build(pipeline)
    with (
        _watching(progress if engine.is_local else None),
        local_workers.minded() if engine.is_local else nullcontext(),
    ):
        try:
            result = pipeline.run()
            state = result.wait_until_finish()
        except Exception as error:
            if local_workers.LOST in str(error):
                raise RuntimeError(
                    f"the {stage} job lost a worker process, killed or out of memory; the same command goes on where it stopped"
                ) from error
            raise failure(stage, _text(error)) from error
    if state != "DONE":
        raise RuntimeError(f"the {stage} job ended as {state} on {engine.name}")


_HEAD = "Traceback (most recent call last):\n"
_RUNNING = re.compile(r" \[while running '[^']*'\]$")
_KIND = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?", re.DOTALL)
_FILE = re.compile(r"\[Errno (\d+)\] (.*): '(.*)'")


def _text(error: Exception) -> str:
    """What a runner says of a failure: a worker's traceback; a worker within this process raises the error itself."""
    said, kind = str(error), type(error)
    return said if _HEAD in said else f"{kind.__qualname__ if kind.__module__ == 'builtins' else _name(kind)}: {said}"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def failure(stage: str, text: str) -> Exception:
    """The error to raise for a job that failed with `text`: a runner's message, most often a worker's traceback."""
    lines = text.rpartition(_HEAD)[2].rstrip().split("\n")
    first = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), 0)
    message = _RUNNING.sub("", "\n".join(lines[first:]))
    # Where Beam cannot add its step to an error of some type, it makes a RuntimeError of "<type>: <message>".
    while (inner := message.removeprefix("RuntimeError: ")) != message and _known(inner):
        message = inner
    return _known(message) or RuntimeError(f"the {stage} job failed: {message}")


def _known(message: str) -> Exception | None:
    """The UserError, CheckError or OSError that "<type>: <message>" stands for."""
    found = _KIND.fullmatch(message)
    kind, said = (found[1], found[2] or "") if found else ("", "")
    for own in (UserError, CheckError):
        if kind == _name(own):
            return own(said)
    standard = getattr(builtins, kind, None)
    if isinstance(standard, type) and issubclass(standard, OSError):
        file = _FILE.fullmatch(said)
        return OSError(int(file[1]), file[2], file[3]) if file else OSError(said)
    return None


@contextmanager
def _watching(progress: Progress | None) -> Iterator[None]:
    if progress is None or progress.total == 0:
        yield
        return
    stop = threading.Event()
    show = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=show, args=(progress, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bar(progress: Progress, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(progress.stage, total=progress.total)
        while not stop.wait(_POLL_SECONDS):
            bars.update(task, completed=progress.count())
        bars.update(task, completed=progress.count())


def _lines(progress: Progress, stop: threading.Event) -> None:
    started, last = time.monotonic(), -1
    while True:
        ended = stop.wait(_POLL_SECONDS)
        done = progress.count()
        if done != last:
            line = {"stage": progress.stage, "done": done, "total": progress.total}
            print(json.dumps({**line, "seconds": round(time.monotonic() - started, 1)}), file=sys.stderr, flush=True)
            last = done
        if ended:
            return
