# Every target sets up what it needs; nothing but Python 3.11 or newer, make and a package index is assumed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM ?= true

.DEFAULT_GOAL := check
.PHONY: setup demo test check format lint types clean

# The stamp is newer than what decides the environment, so an unchanged checkout installs nothing twice.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "likewise needs Python 3.11 or newer; give one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.ready

# The whole path on made-up people: ends in likewise-demo/report.html.
demo: setup
	@$(BIN)/likewise demo

# Workers of the test runner take one thread each: on two cores that is the quickest.
test: setup
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --durations=5

format:
	@$(BIN)/ruff format --check .

lint:
	@$(BIN)/ruff check .

types:
	@$(BIN)/mypy

check: setup
	@$(MAKE) --no-print-directory format lint types
	@$(MAKE) --no-print-directory test

clean:
	rm -rf $(VENV) likewise-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
