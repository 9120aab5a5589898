# make demo    questions about a real film, answered with frames (writes out/)
# make test    the test suite
# make lint    ruff and mypy
# make bench   the speed tables of benchmarks/
# Each does its own set-up in .venv, with the versions locked in requirements/; Python 3.10 to 3.13 and make are all
# that is needed beforehand. CONTRIBUTING.md says when to run the others:
# make test-latest, make test-oldest, make test-engines, make test-browser, make docs, make lock

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := -m pip --quiet --disable-pip-version-check install
TEST := -m pytest -n auto --dist loadfile
MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib
export MPLCONFIGDIR

.PHONY: setup demo test lint bench test-latest test-oldest test-engines test-browser docs lock clean

setup: $(VENV)/.dev

# .runtime: what the demo needs; .dev: what tests, lint and benchmarks need besides.
$(VENV)/.runtime $(VENV)/.dev: $(VENV)/.%: requirements/%.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and "The locked versions are for Python 3.10 to 3.13: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --require-hashes --requirement $<
	$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.runtime
	$(BIN)/python examples/demo.py --out out

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python $(TEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint && $(BIN)/python setup.py --quiet build_py --build-lib build/lint  # adapters/ and weights/ inside
	cd build/lint && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache

bench: setup
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.select
	$(BIN)/python -m benchmarks.network
	$(BIN)/python -m benchmarks.algorithms
	$(BIN)/python -m benchmarks.training_reference
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.corpus

# The newest and the oldest releases that the ranges of pyproject.toml allow.
test-latest:
	$(PYTHON) -m venv --clear $(VENV)-latest
	$(VENV)-latest/bin/python $(PIP) --editable '.[dev]'
	OMP_NUM_THREADS=1 $(VENV)-latest/bin/python $(TEST)

test-oldest:
	$(PYTHON) -m venv --clear $(VENV)-oldest
	$(VENV)-oldest/bin/python $(PIP) uv
	echo "opencv-python; sys_platform == 'never'" > $(VENV)-oldest/overrides.txt  # as in requirements/lock.toml
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest --resolution lowest-direct \
	    --override $(VENV)-oldest/overrides.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python $(TEST)

# Each engine in an environment of its own in .venv-engines; writes benchmarks/results/engines.md. See docs/engines.md.
test-engines: setup
	$(BIN)/python -m tests.engines $(ENGINES)

# The page in a real Chromium (CHROMIUM=/path/of/another); writes pictures of it.
test-browser:
	@test -n "$(CHROMIUM)" || command -v chromium || command -v chromium-browser || \
	    { apt-get update && apt-get install --yes --no-install-recommends chromium; }
	$(PYTHON) -m venv --clear $(VENV)-browser
	$(VENV)-browser/bin/python $(PIP) --editable '.[ui]' pytest playwright
	PICTURES=$(CURDIR)/out/page OMP_NUM_THREADS=1 $(VENV)-browser/bin/python -m pytest tests/browser

# The site in build/docs/site: the pages of the repository as they lie, and the reference from the docstrings.
docs:
	$(PYTHON) -m venv --clear $(VENV)-docs
	$(VENV)-docs/bin/python $(PIP) setuptools $(DOCS)
	rm -rf build/docs && mkdir -p build/docs/source
	$(VENV)-docs/bin/python setup.py --quiet build_py --build-lib build/docs/package
	git ls-files -z -- $(PAGES) | tar -c --null -T - | tar -x -C build/docs/source
	$(VENV)-docs/bin/mkdocs build
DOCS = $(shell sed -n 's/^docs = \[\(.*\)\].*/\1/p' pyproject.toml | sed 's/", "/" "/g')
PAGES := '*.md' '*.png' '*.webp' '*.yaml' LICENSE CITATION.cff weights examples benchmarks ':!*.safetensors' ':!*.mp4'

# Wheels for later Pythons are left out: they would only make the files longer.
lock:
	$(PYTHON) -m venv --clear build/lock && build/lock/bin/python $(PIP) uv
	sed 's/^requires-python = .*/requires-python = ">=3.10,<3.14"/' pyproject.toml \
	    | cat - requirements/lock.toml > build/lock/pyproject.toml
	cd build/lock && bin/uv lock --quiet
	cd build/lock && bin/uv export $(EXPORT) --output-file ../../requirements/runtime.txt
	cd build/lock && bin/uv export $(EXPORT) --extra dev --output-file ../../requirements/dev.txt
EXPORT := --quiet --frozen --format requirements-txt --no-emit-project --no-annotate --no-header

clean:
	rm -rf $(VENV) $(VENV)-latest $(VENV)-oldest $(VENV)-engines $(VENV)-browser $(VENV)-docs build dist *.egg-info out .cache
