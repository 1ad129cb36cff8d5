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

# Two files of tests at a time; threads of torch that spin as they wait would take the other's core. What measures
# time has the machine for itself.
test: $(VENV)/.tested
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -q -m alone

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
