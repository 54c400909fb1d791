# `make demo` and `make test` each work as the first command on a fresh machine with Python 3.11, 3.12 or 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadscope

.PHONY: help setup demo test test-all docs docs-test lint format sae-quality soak endings bench bench-extract bench-store bench-big-store bench-study bench-gpu clean

help:
	@echo "make setup        build $(VENV) from the pinned constraints"
	@echo "make demo         corpus -> features -> classifiers on real Gemma weights"
	@echo "make test         the default test suite (2 cores: under 8 minutes)"
	@echo "make test-all     the slow tests too"
	@echo "make docs         the pages as a site in build/site; a warning is an error"
	@echo "make docs-test    run every code block of the pages (15 minutes)"
	@echo "make lint         ruff and mypy"
	@echo "make sae-quality  measure the shipped SAE on its held-out text (downloads 170 MB)"
	@echo "make soak         random kills for MINUTES (default 15), and what was survived"
	@echo "make endings      reading commands RUNS times (default 600), none of which may be aborted at its end"
	@echo "make bench        all benchmarks that need no GPU (two hours, an idle machine)"
	@echo "make bench-extract  our extraction beside what people do today (an hour, an idle machine)"
	@echo "make bench-store    the store beside other formats (15 minutes, an idle machine)"
	@echo "make bench-big-store  read a store larger than memory (5 minutes, 5 GB of disk)"
	@echo "make bench-study  a study's grid beside scikit-learn's GridSearchCV (many hours, for the peer's sake)"
	@echo "make bench-gpu    each step from the naive pipeline to the engine on a GPU (80 GB)"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/sparsemill demo --out demo-out

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

docs: setup
	$(BIN)/python -m docs.tooling
	$(BIN)/python -m benchmarks.publish
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-test: setup
	$(BIN)/python -m pytest -p no:xdist tests/docs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sae-quality: setup
	$(BIN)/python examples/demo_sae/evaluate.py --sae ray_jobs/demo/sae

MINUTES ?= 15
soak: setup
	$(BIN)/python -m tests.crash.soak --minutes $(MINUTES)

RUNS ?= 600
endings: setup
	$(BIN)/python -m tests.crash.endings --runs $(RUNS)

bench: bench-extract bench-store bench-big-store
	$(BIN)/python -m benchmarks.scaling layers
	$(BIN)/python -m benchmarks.scaling width

bench-extract: setup
	$(BIN)/python -m benchmarks.extract

bench-store: setup
	$(BIN)/python -m benchmarks.store --repeats 3 --layouts

bench-big-store: setup
	$(BIN)/python -m benchmarks.big_store

bench-study: setup
	$(BIN)/python -m benchmarks.study_stores benchmark --out bench-stores
	$(BIN)/python -m benchmarks.study --store bench-stores/benchmark
	$(BIN)/python -m benchmarks.study_scale million
	$(BIN)/python -m benchmarks.study_scale growth

bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu

clean:
	rm -rf $(VENV) demo-out bench-stores build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
