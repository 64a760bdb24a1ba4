"""The examples of the service's description, made from a run of `winnow demo`: python -m tests.service.examples RUNS

RUNS is a folder in which the run is called `demo`. A test asks the service the same again. Examples of jobs and comparisons, which
are not the same twice, stay as they are.
"""

import json
import sys
import tempfile
from pathlib import Path

from starlette.testclient import TestClient

from quality.service.app import create_app
from quality.service.settings import Settings
from tests.runs import REPOSITORY

FILE = REPOSITORY / "quality" / "service" / "examples.json"
RIVER = "The river rises in the mountains and flows to the sea. It was described by the historian in the third century."
ASKED = {
    "healthz": "/healthz",
    "readyz": "/readyz",
    "metrics": "/metrics",
    "corpora": "/v1/corpora?limit=1",
    "corpus": "/v1/corpora/demo",
    "report": "/v1/corpora/demo/report",
    "card": "/v1/corpora/demo/card",
    "stats": "/v1/corpora/demo/stats",
    "documents": "/v1/corpora/demo/documents?name=iana.warc.gz%230",
}
SCORED = {"documents": [{"text": RIVER}], "corpus": "demo", "variant": "filtered", "explain": True}
_START = 3  # lines of a page
_NUMBERS = ("name", "seed", "variants", "inputs")  # of stats.json, which holds much more


def ask(runs: Path, state: Path) -> dict:
    """Name -> what the service answers, cut where it is long."""
    with TestClient(create_app(Settings(runs, state)), base_url="http://127.0.0.1") as client:
        found = {}
        for name, path in ASKED.items():
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            is_json = answer.headers["content-type"] == "application/json"
            found[name] = answer.json() if is_json else "".join(answer.text.splitlines(keepends=True)[:_START])
        found["stats"] = {key: found["stats"][key] for key in _NUMBERS}
        found["score"] = client.post("/v1/score", json=SCORED).json()
        return found


def main() -> None:
    with tempfile.TemporaryDirectory() as state:
        found = {**json.loads(FILE.read_text("utf-8")), **ask(Path(sys.argv[1]), Path(state))}
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
