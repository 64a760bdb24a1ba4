"""One build with clocks: CPU seconds by stage, and how much of all was spent in winnow's own functions.

    python bench/timed_build.py RECIPE RUN WORKERS

Called by throughput.py. Workers' functions are timed by the CPU clock of their thread, as Beam calls them; what runs in the
launcher between the jobs (fit, accounts, report, manifest) by that of the process, in which nothing else runs then. The last line
that is printed is JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

_spent = [0.0]
_lock = threading.Lock()


def _add(seconds: float) -> None:
    with _lock:
        _spent[0] += seconds


def _timed(work: Any) -> Any:
    """`work` with its CPU time counted; of a generator, the time of every step."""

    def steps(iterator: Any) -> Iterator[Any]:
        while True:
            started = time.thread_time()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                _add(time.thread_time() - started)
            yield item

    def call(*arguments, **named):  # without types: Beam takes those of a DoFn for its own
        started = time.thread_time()
        result = work(*arguments, **named)
        _add(time.thread_time() - started)
        return steps(iter(result)) if hasattr(result, "__next__") else result

    return call


def main() -> None:
    recipe_path, run, workers = sys.argv[1:]
    started = time.process_time()
    from pipelines import garbage

    with garbage.resting():  # as the command does
        from pipelines import beam_parts, build, cluster, select, select_parts, select_solve
        from pipelines.engine import Engine
        from pipelines.recipe_file import load

    import_seconds = time.process_time() - started

    def setup(self: Any) -> None:
        self._work = _timed(_timed(self._worker.start)())

    beam_parts.Each.setup = beam_parts.Scatter.setup = setup  # type: ignore[method-assign]
    # What the jobs call outside of a Worker: groups to members, edges, components, losers, decisions.
    for module, names in (
        (cluster, ("exact_members", "repeated_paragraphs", "near_members", "_edges_of", "_components_of")),
        (select, ("_losers_of",)),
    ):
        for name in names:
            setattr(module, name, _timed(getattr(module, name)))
    called = (select_parts.TokensByDraw, select_parts.DecidingDocuments, select_solve.SolveMixture, select_parts.Decide)
    methods = [(cluster._Verify, "process"), (beam_parts.Scatter, "_flush"), *((owner, "__call__") for owner in called)]
    for owner, name in methods:
        setattr(owner, name, _timed(getattr(owner, name)))

    launcher = [0.0]
    plain_run = build.run

    def run_job(*arguments: Any) -> None:
        before = time.process_time()
        plain_run(*arguments)
        launcher[0] -= time.process_time() - before

    build.run = run_job
    options = ["--runner=FnApiRunner"]
    if workers != "1":
        options += ["--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"]
    recipe, base = load(recipe_path)
    before = time.process_time()
    build.build(recipe, base, run, Engine("bench", tuple(options)), lambda text: None)
    launcher[0] += time.process_time() - before
    with open(f"{run}/runs.jsonl") as lines:
        stages = json.loads(lines.readlines()[-1])["stages"]
    told = {"stages": stages, "worker_seconds": _spent[0], "launcher_seconds": launcher[0], "import_seconds": import_seconds}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
