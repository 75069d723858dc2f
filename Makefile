# `make demo` and `make test` need git, make and Python ≥ 3.11 with its venv module, and nothing else.
PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
STAMP := $(ENV)/.installed
CHECKED := src tests/typing

.PHONY: demo test lint format bench docs clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -e . 
	touch $@

$(STAMP)-test: $(STAMP)
	$(BIN)/python -m pip install --quiet --group test
	touch $@

$(STAMP)-lint: $(STAMP)
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

# A digest of this repository's own documentation, with no key and no network.
demo: $(STAMP)
	mkdir -p build
	$(BIN)/agentflow run examples/digest.py docs README.md --output build/digest.md

test: $(STAMP)-test
	scripts/install-services
	$(BIN)/python -m pytest

lint: $(STAMP)-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

format: $(STAMP)-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	scripts/bench

docs: $(STAMP)-test
	$(BIN)/python scripts/docs.py

clean:
	rm -rf $(ENV) .venvs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .tools
