# `make demo` and `make test` need git, make and Python ≥ 3.11 with its venv module, and nothing else.
PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
STAMP := $(ENV)/.installed

.PHONY: demo test isolated lint format bench docs clean

# Stamps follow pyproject.toml. What is no environment, or one without a working pip, is made anew: nothing is ever
# installed outside of it.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "AgentFlow needs Python 3.11 or newer; say make PYTHON=/path/to/it")'
	@echo "installing into $(ENV), which takes a moment the first time"
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || $(PYTHON) -m venv --clear $(ENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(STAMP)-test: $(STAMP)
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(STAMP)-lint: $(STAMP)
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

# A digest of this repository's own documentation, with no key and no network. The last line is the path of the digest.
demo: $(STAMP)
	@mkdir -p build
	$(BIN)/agentflow run examples/digest.py docs README.md --output build/digest.md
	@echo build/digest.md

# Everything: the whole suite, then core and llm once more in environments that have only what each may need.
test: $(STAMP)-test
	$(BIN)/python scripts/fixture_models.py & trained=$$!; scripts/install-services && wait $$trained
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/python scripts/isolated.py

isolated: $(STAMP)-test
	$(BIN)/python scripts/isolated.py

# The bundled pyright and its bundled node: no look for newer ones.
lint: export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
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

# The documentation is Markdown, read where it lies: what is made of it here is the proof that it is true.
docs: $(STAMP)-test
	$(BIN)/python -m pytest tests/test_docs.py --verbose

clean:
	rm -rf $(ENV) .venvs .tools build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
