# `make demo` and `make test` need Python 3.11+ and nothing else; each makes .venv where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
FACES ?= 12000
OPTIONS ?=

.PHONY: demo test lint bench drill docs clean

# pyproject.toml newer than the stamp means that dependencies may have changed
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## faces → shards → two training processes → a report; under 8 minutes on 2 cores
	$(BIN)/preprocess faces --out $(DEMO)/faces --count $(FACES) --seed 0
	$(BIN)/preprocess celeba --source $(DEMO)/faces --out $(DEMO)/shards
	CUDA_VISIBLE_DEVICES= $(BIN)/accelerate launch --config_file launch/accelerate/cpu-2.yaml pipeline/train.py \
		--recipe launch/recipes/demo.yaml --data $(DEMO)/shards --out $(DEMO)/run
	$(BIN)/analysis report $(DEMO)/run/ckpt.pt --out $(DEMO)/report

test: $(VENV)/installed
	$(BIN)/pytest -n 3 --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --warnings

bench: $(VENV)/installed  ## ratios taken in one run each; see docs/performance.md
	$(BIN)/python benchmarks/preprocessing.py
	$(BIN)/python benchmarks/feed.py
	$(BIN)/python benchmarks/mmd.py
	$(BIN)/python benchmarks/train.py

drill: $(VENV)/installed  ## every fault drill of docs/faults.md, under 45 minutes on 2 cores
	$(BIN)/python -m tests.faults $(OPTIONS)

docs: $(VENV)/installed  ## the pages that are made from code: docs/reference.md and the tables of docs/scaling.md
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python benchmarks/scaling.py

clean:
	rm -rf $(DEMO)
