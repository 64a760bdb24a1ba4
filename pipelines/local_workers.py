"""What Beam lacks for a command line: one error instead of many tracebacks, an end when a worker is lost, and quick options.

Beam waits for ever for the answer of a worker process that was killed or ran out of memory. Here its death answers for it:
every instruction that it was given, or is given later, has failed. Beam's own path for failed instructions does the rest.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers

LOST = "winnow: a worker process is lost"
_THREADS = ("run_worker", "read_grpc_client_inputs", "beam_control_read")  # Beam's, which only repeat what `run` raises


class Options(PipelineOptions):
    """Beam's options, each view of them made once: Beam asks for views several times a transform, and a new one takes a parser.

    Views share the values of what they are views of, so that one is as good as another. A quarter of what a small job costs.
    """

    def view_as(self, cls: type[Any]) -> Any:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


@contextmanager
def minded() -> Iterator[None]:
    """While a local pipeline runs: quiet, and no waiting for the dead."""
    handler = worker_handlers.SubprocessSdkWorkerHandler
    start, logger, told = handler.start_worker, logging.getLogger("apache_beam"), threading.excepthook
    level = logger.level

    def tell(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or failed.thread.name not in _THREADS:
            told(failed)

    handler.start_worker = _start_worker
    logger.setLevel(logging.CRITICAL)
    threading.excepthook = tell
    try:
        yield
    finally:
        handler.start_worker, threading.excepthook = start, told
        logger.setLevel(level)


def _start_worker(handler: Any) -> None:
    """SubprocessSdkWorkerHandler.start_worker, and a word to the control connection if the process dies."""
    from apache_beam.runners.portability import local_job_service

    handler.worker = local_job_service.SubprocessSdkWorker(
        handler._worker_command_line, handler.control_address, handler.provision_info, handler.worker_id
    )

    def run() -> None:
        try:
            handler.worker.run()
        except BaseException:
            _fail(handler.control_conn)
            raise

    handler.worker_thread = threading.Thread(name="run_worker", target=run)
    handler.worker_thread.start()


def _fail(connection: Any) -> None:
    """Every instruction of a control connection, pending or to come, has failed."""
    push = connection.push

    def answer(request: Any) -> Any:
        if request is worker_handlers.BeamFnControlServicer._DONE_MARKER:
            return push(request)
        return worker_handlers.ControlFuture(request.instruction_id, _failed(request.instruction_id))

    connection.push = answer
    for instruction, future in list(connection._futures_by_id.items()):
        future.set(_failed(instruction))


def _failed(instruction: str) -> Any:
    return beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=LOST)
