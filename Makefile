# make demo        set up, train a small RPCANet++ on generated scenes, evaluate it, run it on a picture
# make test        set up, run the test suite (under 10 minutes on two cores)
# make test-slow   the tests that take minutes
# make test-lowest the test suite with the oldest packages that pyproject.toml admits; torch too with TORCH=2.11.0
# make test-newest the test suite with the newest packages, torch too: TORCH=2.14.1
# make lint        formatting, lint and types

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
NEWEST := .venv-newest
TORCH := 2.13.0
READY := $(VENV)/.ready
PACKAGES := unfoldkit

.PHONY: demo test test-slow test-lowest test-newest lint setup clean

setup: $(READY)

# torch first and by its version: pip then takes a CPU build where one is at hand,
# and no later package brings in another.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==$(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python tools/demo.py

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PACKAGES) tests

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow tests

test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet torch==$(TORCH) uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 $(PACKAGES) tests

test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet torch==$(TORCH)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]' torch==$(TORCH)
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest -n 2 $(PACKAGES) tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)

clean:
	rm -rf $(VENV) $(LOWEST) $(NEWEST) runs
