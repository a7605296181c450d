# plumbline: `make run` installs what is needed into .venv and opens the chat.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
ARGS ?=

.DEFAULT_GOAL := run
.PHONY: run test check bench redteam clean help

run: $(VENV)/.installed ## install once, then open the chat (ARGS="..." go to app.py)
	@$(BIN)/python app.py $(ARGS)

test: $(VENV)/.installed-dev ## run the tests
	@$(BIN)/python -m pytest -q $(ARGS)

check: $(VENV)/.installed-dev ## lint, formatting, types, tests: what a change must pass
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q

bench: $(VENV)/.installed-dev ## measure start-up and ingestion on the docs/ folder
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.ingest docs

redteam: $(VENV)/.installed-dev ## attack the HTTP API with garak's offline probes (once: a large download)
	@$(BIN)/python -m bench.redteam --setup
	@$(BIN)/python -m bench.redteam $(ARGS)

clean: ## remove the environment and caches; your data in .plumbline/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list these targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## /  make \1	/'

# A stamp is made last, so that an interrupted installation is taken up again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "plumbline: installing into $(VENV) (once; a few minutes)"
	@$(PIP) -e '.[openvino]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "plumbline: installing into $(VENV), with the tools for tests (once; a few minutes)"
	@$(PIP) -e '.[dev]'
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "plumbline: there is no '$(PYTHON)'; install Python 3.11 or newer," \
			"or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "plumbline: needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." \
			"Name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "plumbline: could not make $(VENV); on Debian or Ubuntu:" \
			"apt install python3-venv" >&2; exit 1; }
