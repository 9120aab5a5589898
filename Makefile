# make demo    questions about a real film, answered with frames (writes out/)
# make test    the test suite
# make lint    ruff and mypy
# make bench   the speed tables of benchmarks/
# Each does its own set-up in .venv; Python >= 3.10 and make are all that is needed beforehand.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib
export MPLCONFIGDIR

.PHONY: setup demo test lint bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/python examples/demo.py --out out

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.select
	$(BIN)/python -m benchmarks.network
	$(BIN)/python -m benchmarks.algorithms
	$(BIN)/python -m benchmarks.training_reference
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.corpus

clean:
	rm -rf $(VENV) build dist *.egg-info out .cache
