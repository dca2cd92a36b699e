# make demo      raise a tiny herd from the sample crawl: minutes on two cores
# make install   set up .venv with the herdlm command
# make test      the quick tests, those of numerics a second time as on another kind of processor
# make lint      formatting, rules, types, layers, spelling

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# On a machine with an NVIDIA driver any supported torch is right. Without one, the version the tests run on is pinned;
# give TORCH="torch==2.13.0 --index-url ..." to take it from an index of CPU builds.
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),torch>=2.11,torch==2.13.0)
PIP := $(BIN)/python -m pip install --quiet

.PHONY: install demo test test-all lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("herdlm needs Python 3.11 or newer, this is %d.%d: run make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) "$(firstword $(TORCH))" $(wordlist 2,99,$(TORCH))
	$(PIP) --editable ".[all]"
	@touch $@

# What tests and linters need on top: transformers and TRL as referees, among others.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	@touch $@

demo: install
	$(BIN)/herdlm run recipes/tiny.toml --out runs/tiny

# Processors with units for BF16 compute in it, others in float32: the second run takes the other way (HERDLM_CPU).
NUMERIC = tests/align tests/generate tests/model --ignore-glob "*benchmark*" --ignore-glob "*interpreted*"
OTHER_CPU = $(shell grep -qsw avx512_bf16 /proc/cpuinfo && echo avx2 || echo bf16)
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(VENV)/.installed-dev
	$(PYTEST)
	HERDLM_CPU=$(OTHER_CPU) $(PYTEST) $(NUMERIC)

test-all: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ""

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
