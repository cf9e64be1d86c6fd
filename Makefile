# Two commands do everything, set-up included: `make demo` and `make test`. The environment lives in .venv; a second run
# installs nothing again unless pyproject.toml or constraints.txt changed.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test lint test-slow clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       install, then train, prune and cost a small network on the embedded digits"
	@echo "make test       install the test tools too, then linter, type check, import contract and tests"
	@echo "make lint       the same without the tests"
	@echo "make test-slow  the tests that take longer"
	@echo "make clean      remove the environment, builds and caches"

demo: $(VENV)/.runtime-installed
	$(BIN)/fixgrad demo

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

lint: $(VENV)/.test-installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

# pytest exits with 5 when no test carries the mark; that is no failure.
test-slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -n $(WORKERS) -m slow || [ $$? -eq 5 ]

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -exec rm -rf {} +

# setuptools comes first because the package is built with the one that is pinned, not with a fresh download.
$(VENV)/.runtime-installed: pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(MAKE) --no-print-directory venv
	$(PIP_INSTALL) setuptools
	$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.test-installed: $(VENV)/.runtime-installed
	$(PIP_INSTALL) --no-build-isolation --editable ".[test]"
	@touch $@

# Also replaces an environment whose interpreter is gone or too old, or that was left without pip.
.PHONY: venv
venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: fixgrad needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing);" \
	    "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
