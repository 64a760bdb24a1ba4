"""The application: what it is made of, which requests reach it, and how it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import FastAPI

from quality.service import job_routes, openapi, pages, problems, routes
from quality.service.corpora import Corpora
from quality.service.jobs import JobStore
from quality.service.limits import Guard, Slots
from quality.service.metrics import Metrics
from quality.service.runner import Runner
from quality.service.scoring import Scorers
from quality.service.settings import Settings, check_address

_TAGS = [
    {"name": "corpora", "description": "What the runs hold, and what became of a document."},
    {"name": "scores", "description": "What a text is worth."},
    {"name": "jobs", "description": "Builds and comparisons, started and watched."},
    {"name": "service", "description": "Is it well?"},
]


@dataclass(frozen=True, slots=True)
class Service:
    """What routes reach by `request.app.state.service`."""

    settings: Settings
    corpora: Corpora
    scorers: Scorers
    explanations: Slots
    jobs: JobStore
    runner: Runner
    metrics: Metrics


def create_app(settings: Settings) -> FastAPI:
    """The application of these settings; jobs run from its start to its stop. Raises UserError on what cannot be served."""
    check_address(settings)
    jobs = JobStore(settings.state / "jobs.sqlite", settings.limits.queued_jobs, settings.limits.job_starts)
    most = settings.limits
    service = Service(
        settings,
        Corpora(settings.runs),
        Scorers(most),
        Slots(most.explanations, most.wait_seconds, "documents are looked up"),
        jobs,
        Runner(jobs, settings),
        Metrics(jobs.counts),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.runner.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.runner.stop)
            jobs.close()

    app = FastAPI(
        title="winnow", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False, openapi_tags=_TAGS
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(job_routes.router)
    app.include_router(pages.router)
    app.state.problem_page = pages.problem_page
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    problems.install(app)
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]
    return app
