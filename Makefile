# make train, test, torture, lint, bench: each makes .venv first where it is missing.
# make cuda: all that a GPU has to show, with what is installed already.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Asked of the driver, which may take its time, only where something is installed.
EXTRAS = $(shell sh scripts/cuda_extra.sh)

.PHONY: train test torture lint bench cuda
.DEFAULT_GOAL := test

# One stamp for each set of extras; made anew when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*$(EXTRAS)]"
	touch $@

train: $(VENV)/.installed-fast
	$(BIN)/mlpkit train $(ARGS)

# Two processes, as most tests keep one processor busy, each with one BLAS thread, as more would
# contend; a file's tests stay in one process.
test: $(VENV)/.installed-test
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

torture: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/torture --torture --durations=0 $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed-fast
	$(BIN)/mlpkit bench $(ARGS)

cuda:
	PYTHON=$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) sh bench/cuda.sh
