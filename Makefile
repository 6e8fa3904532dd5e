# Everything a newcomer needs, with Python 3.11 or newer and make. Every target can be run again: what is installed,
# fetched, asked or answered already is not done twice. PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart
# Python compiles what it imports, once, where it is imported first: of what pip would compile, most is never used.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-vllm lint clean

help: ## Say what each target does.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST))

quickstart: $(VENV)/.stamp-local ## Make a small dataset with a small open-weight model on this machine.
	$(BIN)/synthgen generate examples/quickstart.yaml -o $(RUN) >/dev/null
	$(BIN)/synthgen show $(RUN)
	@printf '\ndataset: %s/data   rejected: %s/rejected   card: %s/README.md\n' $(RUN) $(RUN) $(RUN)

test: lint ## Check style and types, then run every test, the quickstart among them.
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

test-slow: $(VENV)/.stamp-dev ## Run the tests that are too slow for every time (a quarter of an hour; one fetches 93 MB).
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 2

test-vllm: $(VENV)/.stamp-dev ## Run the tests that need a real vLLM: installed beside us on the first run, 4 GB.
	$(BIN)/python -m tests.vllm_server .vllm $(BIN)/python -m pytest -m vllm -rs

lint: $(VENV)/.stamp-dev ## Check style (ruff) and types (mypy --strict).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Remove the environment and all caches; runs/ stays.
	rm -rf $(VENV) .vllm dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable, so that a stamp needs to know pyproject.toml only: changed sources need no new installation.
$(VENV)/.stamp-local: $(VENV)/.stamp-venv pyproject.toml
	@echo 'installing synthgen[local] into $(VENV) ...'
	$(INSTALL) --editable '.[local]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-venv pyproject.toml
	@echo 'installing synthgen[dev,local] into $(VENV) ...'
	$(INSTALL) --editable '.[dev,local]'
	@touch $(VENV)/.stamp-local $@

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'synthgen needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo 'python -m venv failed; Debian and Ubuntu have it in the package python3-venv' >&2; exit 1; }
	@touch $@
