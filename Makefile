.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
# the first Python that is new enough
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help demo test test-fast test-full bench bench-dispatch bench-scale check format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## dial 2,000 records against a simulated provider, and prove the result
	@$(BIN)/dispatcher demo

test: $(READY) ## run every test but the longest, on real servers and processes
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not acceptance and not full"
	@$(BIN)/python -m pytest -m "acceptance and not full"

test-full: $(READY) ## run every test
	@$(BIN)/python -m pytest -m "full or not full"

test-fast: $(READY) ## run the tests that start no workers
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not acceptance and not full"

bench: $(BENCH) ## how fast, against baselines of the same run; writes docs/performance.md (about twenty minutes)
	@failed=0; for what in loading dispatch peers workers; do $(BIN)/python -m bench $$what || failed=1; done; \
		$(BIN)/python -m bench report; exit $$failed

bench-scale: $(BENCH) ## ten million destinations, fifty million listed numbers, 10,000 campaigns (about an hour, 30 GB)
	@$(BIN)/python -m bench scale; failed=$$?; $(BIN)/python -m bench report; exit $$failed

bench-dispatch: $(BENCH) ## dispatch only; fails when a gate is missed or a run is void (about ten minutes)
	@$(BIN)/python -m bench dispatch

check: $(READY) ## style, types, and the rules about who may import whom
	@$(BIN)/ruff check bench config dispatcher tasks tests
	@$(BIN)/ruff format --check bench config dispatcher tasks tests
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_rules.py

format: $(READY) ## write the code as `make check` wants it
	@$(BIN)/ruff check --fix bench config dispatcher tasks tests
	@$(BIN)/ruff format bench config dispatcher tasks tests

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q

lock: ## resolve the dependencies anew (needs uv)
	@$(LOCK) pyproject.toml --all-extras --group dev --upgrade -o requirements.lock
	@$(LOCK) pyproject.toml --extra web --extra ops --constraint requirements.lock -o requirements-run.lock
	@$(LOCK) --group bench --constraint requirements.lock -o requirements-bench.lock

$(BENCH): $(READY) requirements-bench.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; install it, or say: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
