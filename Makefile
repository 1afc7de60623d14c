# Two commands on a fresh machine with python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test chaos check bench docs format clean
help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: $(READY) ## the main job in a minute: write, lose the machine, boot again, every row is back
	@$(BIN)/sidecar demo

test: $(READY) ## the whole suite, against a real S3 server
	@$(BIN)/python -m pytest

chaos: $(READY) ## 200 rounds of kill -9 at random instants, each followed by a boot that must lose nothing published
	@$(BIN)/python -m tests.chaos

check: $(READY) ## format, lint, types, import rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) ## speed and memory, measured and printed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group bench
	@$(BIN)/python -m tests.benchmarks

docs: $(READY) ## the generated tables of README, and the dashboard
	@$(BIN)/python -m tests.readme
	@$(BIN)/python -m tests.dashboard

format: $(READY) ## what `check` would complain about, where a tool can mend it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) -m venv failed; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "installing into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	@touch $@
