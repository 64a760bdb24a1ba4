"""`winnow serve` as a process of its own: it answers, it stops, and what it is refused for is one line."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.runs import REPOSITORY, command
from tests.service.conftest import TOKEN


@pytest.fixture
def started(tmp_path):
    """Starts `winnow serve` on a free port; returns (process, URL). It is killed after the test if it still runs."""
    processes = []
    log = open(tmp_path / "log", "w")  # noqa: SIM115  (closed below)

    def start(runs, *more, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "serve", "--runs", str(runs), "--port", "0", *more],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        processes.append(process)
        line = process.stdout.readline()
        found = re.fullmatch(r"winnow serves .* at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + (tmp_path / "log").read_text()
        return process, found[1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
    log.close()


def test_it_serves_and_stops_on_a_signal(started, copied, tmp_path):
    """Reads, a write with its token, one line a request in the log, nothing else on standard output, an end in good order."""
    process, url = started(copied, WINNOW_TOKEN=TOKEN)
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/v1/corpora/tiny").json()["state"] == "complete"
        assert client.get("/v1/corpora", headers={"Host": "evil.example"}).status_code == 403
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/builds", json={"recipe": "no-such", "run": "x"}, headers=headers).status_code == 422
        assert client.post("/v1/builds", json={"recipe": "no-such", "run": "x"}).status_code == 401
        assert "server" not in client.get("/healthz").headers
        assert client.post("/v1/score", json={"documents": [{"text": "The river."}]}).json()["results"][0]["language"] == "en"
    assert (copied / ".winnow-service").stat().st_mode & 0o777 == 0o700
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stdout.read() == ""
    said = [re.sub(r"^[-0-9]+ [:,0-9]+ | \d+ ms$", "", line) for line in (tmp_path / "log").read_text().splitlines()]
    assert said == [
        "GET /v1/corpora/{id} 200",
        "GET unmatched 403",
        "POST /v1/builds 422",
        "POST /v1/builds 401",
        "GET /healthz 200",
        "POST /v1/score 200",
    ]


def test_what_it_cannot_serve_is_one_line(tmp_path):
    for arguments, told in [
        (["--runs", str(tmp_path / "no")], f"winnow: --runs {tmp_path}/no: no such folder; give one on a local disk\n"),
        (
            ["--runs", str(tmp_path), "--host", "0.0.0.0"],
            "winnow: --host 0.0.0.0: others can reach this address; give a token by --token-file FILE or WINNOW_TOKEN,"
            " or listen on 127.0.0.1\n",
        ),
    ]:
        done = command(["serve", *arguments])
        assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(["serve", "--runs", str(tmp_path), "--port", str(port)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"winnow: 127.0.0.1:{port}: Address already in use; give another --host or --port\n"


def test_two_services_on_one_state_are_one_line(tmp_path):
    (tmp_path / ".winnow-service").mkdir()
    with open(tmp_path / ".winnow-service/.lock", "w") as held:  # as the first service holds it
        fcntl.flock(held, fcntl.LOCK_EX)
        done = command(["serve", "--runs", str(tmp_path), "--port", "0"])
    assert (done.returncode, done.stdout) == (2, "")
    told = "another service keeps its jobs here; stop it, or give another --state folder"
    assert done.stderr == f"winnow: {tmp_path}/.winnow-service: {told}\n"


def test_the_command_line_brings_neither_fastapi_nor_what_the_service_reads_with():
    """`winnow --help` answers at once, and where the extra is missing a line says which."""
    heavy = ("fastapi", "starlette", "uvicorn", "numba", "pyarrow")
    code = f"import sys, pipelines.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_application_brings_neither_beam_nor_torch():
    code = "import sys, quality.service.app; print([m for m in ('apache_beam', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_extra_is_one_line():
    """In an interpreter that does not find fastapi."""
    code = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'fastapi' else real(name, *more)\n"
        "from pipelines.cli import main; sys.argv = ['winnow', 'serve', '--runs', '.']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "winnow: fastapi is not installed; pip install 'winnow[service]'\n")
