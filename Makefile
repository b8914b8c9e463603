# Every target makes .venv when it is missing or older than the lock; Python 3.11+ with venv is all it needs.
# `make demo` and `make test` on a fresh machine need nothing before them.

.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The interpreter that makes .venv: the first of these that is new enough. Override: make PYTHON=/path/to/python3.12
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell $(name) -c $(ENOUGH) 2>/dev/null && echo $(name))))
ENOUGH := 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
PYTHON_OR_STOP = test -n "$(PYTHON)" && $(PYTHON) -c $(ENOUGH) || { echo "towpath needs Python 3.11 or newer with venv: install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
# Two workers or more, never a crowd: the suite starts servers and child processes of its own.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadgroup
STRUCTURE := tests/test_layers.py tests/test_style.py tests/test_docs.py tests/test_packaging.py

.PHONY: help install demo dev test sdks check static format proof mutants bench build lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## Make .venv from the lock, nothing else

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON_OR_STOP)
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Run the main job against the sandbox, show the result, and end
	@$(BIN)/towpath dev --demo

dev: $(STAMP) ## Server, sandbox and sample traffic, until Ctrl-C
	@$(BIN)/towpath dev

test: static sdks ## All checks and all tests (PYTEST_ARGS="tests/log -k replay" for some)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

sdks: $(STAMP) ## Fetch what the SDK tests need: npm packages; Chromium, by apt, where root
	@$(BIN)/python -c "from tests.sdks import chromium, npm; from tests.sources import emulators; npm.installed(); npm.installed(emulators.PACKAGES); chromium.found()" || echo "SDK tests will be skipped, see above" >&2

check: static ## Format, lint, types, layers, style, docs in step with the code, packaging
	$(BIN)/python -m pytest $(STRUCTURE)

static: $(STAMP)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/python -m tools.layers

format: $(STAMP) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

proof: $(STAMP) ## What takes hours: 20,000 histories, every fault at full size, every mutant (by hand, not in CI)
	SEEDS=20000 $(BIN)/python -m pytest tests/simulation $(PYTEST_ARGS)
	mkdir -p build && rm -f build/trust.jsonl
	FAULTS=full TRUST_REPORT=build/trust.jsonl $(BIN)/python -m pytest tests/faults tests/push/test_kill.py; status=$$?; \
		$(BIN)/python -m tools.trust build/trust.jsonl; exit $$status
	$(BIN)/python -m tools.mutants
	$(BIN)/python -m tools.uncovered

mutants: $(STAMP) ## Break one rule of delivery at a time; each must be noticed
	$(BIN)/python -m tools.mutants

bench: $(STAMP) ## Measure; the figures of the README come from here
	$(BIN)/python -m bench

build: $(STAMP) ## The wheel, in dist/
	$(BIN)/python -m hatchling build -t wheel

lock: pyproject.toml ## Resolve pyproject.toml again into requirements.lock (needs a package index)
	@$(PYTHON_OR_STOP)
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	build/lock/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
		--all-extras --group dev --no-header --no-emit-index-url --no-emit-find-links --upgrade -o requirements.lock

clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis
