# `make video` makes a video, `make test` runs the tests; each creates the environment if it is not there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red circle moves right on a white background
# The CPU build where pip is told to prefer it, the CUDA build elsewhere; any torch >= 2.11 will do.
TORCH ?= torch==2.13.0

.PHONY: video test check

video: $(VENV)/.installed
	$(BIN)/hyvideo-rt generate --prompt "$(PROMPT)"

test: $(VENV)/.tested
	$(BIN)/python -m pytest -q

check: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
