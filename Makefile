# Two doors: `make demo` and `make test`. Each does all set-up in .venv, and again at once when nothing changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test setup lint

demo: .venv/ready
	$(BIN)/fastrain demo --out demo

test: .venv/ready lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/ready
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[rain,grib,dask,export,dev]'
	touch $@
