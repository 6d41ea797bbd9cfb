# Everything starts here. `make help` explains the targets; what is missing is set up inside the checkout, in .venv.

PORT ?= 8500
HOST ?= 127.0.0.1
DATA ?= ./stoa-data
EXAMPLE ?= examples/alma-survey
PYTHON ?= python3
JOBS ?= 2
CASES ?=
ARGS ?=

SHELL := /bin/sh
BIN := .venv/bin
DISTRIBUTIONS := contracts services/chassis services/tables services/scheduler services/executor services/web client
PYPROJECTS := pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml)
CHECKED := contracts services client benchmarks examples tests

# The cache of uv goes where the user keeps caches, or into the checkout where that place cannot be written.
CACHE_HOME := $(or $(XDG_CACHE_HOME),$(if $(HOME),$(HOME)/.cache))
ifeq ($(UV_CACHE_DIR),)
export UV_CACHE_DIR := $(shell d='$(CACHE_HOME)/uv'; \
    if [ -n '$(CACHE_HOME)' ] && mkdir -p "$$d" 2>/dev/null && [ -w "$$d" ]; then echo "$$d"; else echo '$(CURDIR)/.venv/cache'; fi)
endif
# Python is the one that the user has; nothing else is fetched behind their back.
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help up test lint format bench schemas lock clean FORCE

help: ## Explain the targets
	@echo 'Stoa: tables in which every row is one run of a workflow.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make up     PORT=$(PORT) HOST=$(HOST) DATA=$(DATA)   are its settings and can be given'
	@echo '  make test   ARGS="-k name" JOBS=$(JOBS)                       likewise'
	@echo '  make bench  CASES=edit_ms_100,start_s                 runs only these cases'

up: .venv/.up ## Start Stoa with the example, and install first what it needs; Ctrl-C stops all of it
	@exec $(BIN)/stoa up --port '$(PORT)' --host '$(HOST)' --data '$(DATA)' --example '$(EXAMPLE)'

test: .venv/.dev ## Run the tests, on SQLite and PostgreSQL, on the in-memory bus and on NATS
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: .venv/.dev ## Check style, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: .venv/.dev ## Put the code into its format and mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.dev ## Measure, and print one JSON object a line
	@exec $(BIN)/python -m benchmarks $(if $(CASES),--cases '$(CASES)') $(ARGS)

schemas: .venv/.dev ## Generate the JSON Schemas and the AsyncAPI document anew from the event models
	$(BIN)/python -m stoa_contracts.generate $(ARGS)

lock: .venv/.uv ## Lock the dependencies anew; ARGS=--upgrade takes newer versions
	UV=$(BIN)/uv requirements/compile.sh $(ARGS)

clean: ## Remove what make made: environment, caches, builds. The data in DATA stay
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './node_modules/*' -prune -exec rm -rf {} +

# --- What is set up in .venv, in three steps, each marked by a file of its own -------------------------------------

# A checkout that was moved, or whose Python went away, has an environment that works no longer.
healthy = grep -qsF '$(CURDIR)/.venv' $(BIN)/activate && $(BIN)/python -c '' 2>/dev/null

.venv/.uv: requirements/uv.txt $(if $(shell $(healthy) && echo yes),,FORCE)
	@command -v $(PYTHON) >/dev/null || { echo 'Stoa needs Python 3.11 or newer, and there is no $(PYTHON). Install it, or name one: make PYTHON=/path/to/python3.' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Stoa needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo 'Stoa needs a virtual environment, and $(PYTHON) cannot make one. On Debian and Ubuntu: apt install python3-venv.' >&2; exit 1; }
	@{ $(healthy); } || { echo 'Making the environment .venv' >&2; $(PYTHON) -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt >&2
	@touch $@

# $(1): the name of a locked list. The distributions come last, because syncing removes what is not in the list.
install = echo 'Installing what requirements/$(1).txt locks' >&2; \
    $(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/$(1).txt; \
    $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)

# Whoever has the larger list keeps it: going from `make test` to `make up` and back installs nothing.
.venv/.up: .venv/.uv requirements/up.txt requirements/dev.txt $(PYPROJECTS)
	@set -e; if [ -e .venv/.dev ]; then $(call install,dev); touch $@ .venv/.dev; else $(call install,up); touch $@; fi

.venv/.dev: .venv/.uv requirements/up.txt requirements/dev.txt $(PYPROJECTS)
	@set -e; $(call install,dev); touch .venv/.up $@
