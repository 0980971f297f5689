# make demo        set up, train a small RPCANet++ on generated scenes, evaluate it, run it on a picture
# make test        set up, run the test suite (under 10 minutes on two cores)
# make test-slow   the tests that take minutes
# make test-lowest the test suite with the oldest packages that pyproject.toml admits; torch too with TORCH=2.11.0
# make test-newest the test suite with the newest packages, torch too: TORCH=2.14.1
# make lint        formatting, lint and types
# make docs        set up, build the site in build/site and check its links
# make release-check  build wheel and sdist, check them, install the wheel into an empty environment, and run the
#                  demo and the fast tests against it; TESTS=tests/kernels runs fewer of them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
NEWEST := .venv-newest
TORCH := 2.13.0
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
RELEASE := .venv-release
SITE := build/site
TESTS := tests
PACKAGES := unfoldkit

.PHONY: demo test test-slow test-lowest test-newest lint docs release-check setup clean

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

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(DOCS_READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs $(SITE)
	$(BIN)/python docs/check_site.py $(SITE)

# `pytest`, unlike `python -m pytest`, does not put this folder first: what the tests import is the wheel.
release-check:
	rm -rf dist $(RELEASE) build/release
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet 'build==1.6.1' 'twine==7.0.0' 'cffconvert==2.0.0'
	$(RELEASE)/bin/cffconvert --validate
	$(RELEASE)/bin/python -m build
	$(RELEASE)/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet torch==$(TORCH)
	$(RELEASE)/bin/python -m pip install --quiet "$$(ls dist/*.whl)[dev]"
	mkdir -p build/release
	cd build/release && ../../$(RELEASE)/bin/unfoldkit demo
	OMP_NUM_THREADS=1 $(RELEASE)/bin/pytest -n 2 $(TESTS)

clean:
	rm -rf $(VENV) $(LOWEST) $(NEWEST) $(RELEASE) build dist runs
