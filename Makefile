# Two commands on a fresh machine with python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUNDLING := build/venv-bundle
MEASURED := build/venv-bench
# Many images set it; but then each worker of the tests compiles the program and all tests again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo quick test chaos stress soak apps check bench docs generate bundle format clean
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: $(READY) ## see it work in a minute: write, lose the machine, boot again, every row is back
	@$(BIN)/sidecar demo

quick: $(READY) ## unit and property tests, in about a minute
	@$(BIN)/python -m pytest --quiet --numprocesses auto --dist worksteal tests/unit tests/properties

test: $(READY) ## the whole suite, against a real S3 server
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal

chaos: $(READY) ## 200 rounds of kill -9 at random instants, each followed by a boot that must lose nothing published
	@$(BIN)/python -m tests.chaos

stress: $(READY) ## writers with an old and a new SQLite, and kill -9 of all processes: what streaming captures is compared byte by byte; and what was waited for is never lost
	@$(BIN)/python -m tests.stress
	@$(BIN)/python -m tests.stress wait
	@$(BIN)/python -m tests.stress.replacing
	@IN_PLACE_HISTORIES=10000 $(BIN)/python -m pytest -q --timeout 0 tests/integration/histories/test_in_place.py
	@STREAMING_HISTORIES=10000 $(BIN)/python -m pytest -q --timeout 0 tests/integration/histories/test_streaming_random.py
	@STREAMING_EXAMPLES=500 $(BIN)/python -m pytest -q --timeout 0 tests/integration/histories/test_streaming_model.py

soak: $(READY) ## 5,000 random databases: the difference of two states, as SQL, makes one of the other, typed and byte for byte
	@$(BIN)/python -m tests.soak

apps: $(READY) ## five applications from PyPI and npm on machines that are lost: no row may be lost (installs them once; needs node)
	@$(BIN)/python -m tests.apps

check: $(READY) ## format, lint, types, import rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(MEASURED)/.ready ## speed and memory, measured and printed
	@$(MEASURED)/bin/python -m tests.benchmarks

bundle: $(BUNDLING)/.ready ## build dist/sidecar, which runs in any image with glibc without Python (on Linux, with binutils)
	@PYTHONHASHSEED=1 PYINSTALLER_CONFIG_DIR=build/pyinstaller $(BUNDLING)/bin/pyinstaller --noconfirm --clean --log-level ERROR \
		--distpath dist --workpath build/pyinstaller infra/bundle/sidecar.spec
	@dist/sidecar/sidecar --version
	@echo "dist/sidecar: $$(du -s --apparent-size --block-size=MB dist/sidecar | cut -f1); needs $$(grep -rhao 'GLIBC_2\.[0-9]*' dist/sidecar | sort -Vu | tail -n 1)"

docs: $(READY) ## build build/site from docs/; fails on a broken link or anchor, or a page that is not in the navigation
	@rm -rf build/site
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env --write-all \
		--builder dirhtml --doctree-dir build/doctrees docs build/site

generate: $(READY) ## update the generated parts of docs/, and the dashboard
	@$(BIN)/python -m tests.docs
	@$(BIN)/python -m tests.dashboard

format: $(READY) ## fix what `check` complains about, as far as a tool can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove the virtual environment, build results and caches
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) -m venv failed; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "installing into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	@touch $@

# Separate from $(VENV), so that development tools get neither into the bundle nor into the measured memory (structlog
# imports rich and greenlet if they are installed).
build/venv-%/.ready: pyproject.toml constraints.txt
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo "installing into $(@D) (once) ..."
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint constraints.txt pip
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group $*
	@touch $@
