# Every target makes its own virtual environment first; nothing outside this folder is touched.
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.made
# The first of these that is 3.11 or newer makes the environment; name another with `make PYTHON=… test`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
            "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types floors unit vm bench lock clean

help:                ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP)       ## Apply hostile agents in real jails and print what the kernel counted
	$(VENV)/bin/python examples/fault-isolation/demo.py

test: lint types floors unit  ## Everything that must be green: ruff, mypy --strict, the floors, pytest

lint: $(STAMP)       ## ruff: style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)      ## mypy --strict
	$(VENV)/bin/mypy

floors: $(STAMP)     ## import-linter: a room imports only rooms below it
	$(VENV)/bin/lint-imports

unit: $(STAMP)       ## pytest in a few processes, without the virtual machine (one only: make unit ARGS=-n0)
	$(PY) -m pytest -m "not vm and not bench" -n auto --dist loadfile $(ARGS)

vm: $(STAMP)         ## A selection in a Debian with systemd and cgroup v2, as root and as a user
	$(PY) -m tests.vm $(ARGS)

bench: $(STAMP)      ## Print the figures of tests/bench/README.md
	$(PY) -m tests.bench

lock:                ## Write requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock

clean:               ## Remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "agentk needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "Python has no venv module: sudo apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
