# make demo and make test are all that a newcomer needs; README.md shows the plain pip lines behind them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The environment is installed again only when one of these is newer than it.
INPUTS := pyproject.toml setup.py constraints.txt $(shell find csrc -type f 2>/dev/null)

.PHONY: help setup demo test lint lint-python lint-cpp lint-types bench clean
help:
	@echo "make setup | demo | test | lint | bench | clean        (PYTHON=$(PYTHON) VENV=$(VENV))"

setup: $(VENV)/installed

$(VENV)/installed: $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/fastsiren demo

test: setup
	$(BIN)/pytest

lint: lint-python lint-cpp lint-types

lint-python: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-cpp: setup
	find csrc -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run -Werror

# mypy reads the package as a wheel has it: kernels/ and bench/ in their installed places.
lint-types: setup
	rm -rf build/typed
	$(BIN)/python setup.py -q build_py --build-lib build/typed
	MYPYPATH=build/typed $(BIN)/mypy -p fastsiren

bench: setup
	$(BIN)/python -m fastsiren.bench cpu

clean:
	rm -rf $(VENV) build dist *.egg-info fastsiren/_C.*.so
