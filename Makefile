# Two commands matter: `make demo` and `make test`. Both work on a fresh clone with Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
COVERAGE ?= --cov --cov-report=term
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types tests slow bench clean

demo: $(READY)  ## start the demonstration on http://127.0.0.1:8000
	$(BIN)/python -m cookiesession demo $(ARGS)

test: lint types tests  ## everything: ruff, mypy, pyright, pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy
	$(BIN)/pyright

tests: $(READY)
	$(BIN)/pytest -m "not slow" -n auto --dist loadfile $(COVERAGE) $(ARGS)

slow: $(READY)  ## what takes minutes: simulations and fuzzing of which `test` runs a slice
	$(BIN)/pytest -m slow --timeout 3600 $(ARGS)

bench: $(READY)  ## the benchmarks, beside other libraries and the bare primitives
	$(BIN)/python benchmarks/requests.py $(ARGS)
	$(BIN)/python benchmarks/requests.py --speed $(ARGS)
	$(BIN)/python benchmarks/scaling.py $(ARGS)
	$(BIN)/python benchmarks/concurrency.py $(ARGS)
	$(BIN)/python benchmarks/instructions.py $(ARGS)
	$(BIN)/python benchmarks/memory.py $(ARGS)
	$(BIN)/python benchmarks/stores.py $(ARGS)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is too old: make $(MAKECMDGOALS) PYTHON=python3.11, or a newer one")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[cli,demo,fastapi,postgresql,redis,settings,sqlite]" --group dev
	$(BIN)/python -m pip install --quiet --target $(VENV)/redis-4.5.1 --upgrade redis==4.5.1  # for one test, which asks no network
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
