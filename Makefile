# Everything from a fresh machine: Python 3.11 or 3.12 and the package registry are all that is needed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check clean

demo: $(VENV)/demo.stamp  ## all of winnow on the embedded sample of real text, in minutes
	$(BIN)/winnow demo

test: $(VENV)/dev.stamp  ## the whole test suite
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: $(VENV)/dev.stamp  ## style, types, spelling, and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs pipelines quality train tests bench

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "winnow needs Python 3.11 or 3.12: give its path as PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(VENV)/bin/python pyproject.toml constraints.txt Makefile
	$(PIP) --editable '.[service,train]'
	$(BIN)/winnow models fetch
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps megatron-core==0.16.1  # the trainers' own shard reader, a judge in the tests; its dependencies are for GPUs
	@touch $@

clean:
	rm -rf $(VENV) runs
