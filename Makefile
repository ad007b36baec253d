# make demo and make test are all that a newcomer needs; README.md shows the plain pip lines behind them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The environment is installed again only when one of these is newer than it.
INPUTS := pyproject.toml setup.py constraints.txt $(shell find csrc -type f 2>/dev/null)

# One process per core; files stay whole, as tests of a file share what they expect. Threads of several processes must
# not spin.
WORKERS := $(shell getconf _NPROCESSORS_ONLN)
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile

# Kernels run without a GPU in Triton's interpreter, in processes of their own, where Triton exists: also with the oldest
# supported version.
INTERPRETED := TRITON_INTERPRET=1 FASTSIREN_TEST_BACKENDS=triton
OLDEST := $(VENV)/oldest-triton
PASSES := $(addprefix tests/test_,$(addsuffix .py,value value_bwdbwd jet adjoint sandwich loss grid))
KERNELS := $(addprefix tests/test_,$(addsuffix .py,ops orders backends memory_safety triton triton_sine triton_memory))
ifeq ($(shell uname -sm),Linux x86_64)
TRITON := test-triton test-oldest-triton
endif

.PHONY: help setup demo test test-cpu test-triton test-oldest-triton lint lint-python lint-cpp lint-types bench clean
help:
	@echo "make setup | demo | test | lint | bench | clean        (PYTHON=$(PYTHON) VENV=$(VENV))"

setup: $(VENV)/installed

$(VENV)/installed: $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/fastsiren demo

test: test-cpu $(TRITON)

test-cpu: setup
	$(PYTEST)

test-triton: setup
	$(INTERPRETED) $(PYTEST) -k triton $(PASSES) $(KERNELS)

test-oldest-triton: $(OLDEST)/installed
	PYTHONPATH=$(OLDEST) $(INTERPRETED) $(PYTEST) -k "triton and (float64 and N33 or 7x9 or random)" \
		$(PASSES) tests/test_triton_sine.py

$(OLDEST)/installed: tests/oldest-triton.txt | setup
	$(BIN)/pip install --no-deps --upgrade --target $(OLDEST) -r $<
	touch $@

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
