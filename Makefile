# Every target needs Python 3.11 or newer and nothing else; each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
OPTIONS ?=

.PHONY: demo explore test lint bench bench-gpu faults docs clean

# pyproject.toml newer than the stamp means that dependencies may have changed
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

demo: $(VENV)/installed  ## photographs → shards → two training processes → a report; under 8 minutes on 2 cores
	$(BIN)/preprocess celeba --source launch/photos --out $(DEMO)/shards
	CUDA_VISIBLE_DEVICES= $(BIN)/accelerate launch --config_file launch/accelerate/cpu-2.yaml pipeline/train.py \
		--recipe launch/recipes/demo.yaml --data $(DEMO)/shards --out $(DEMO)/run
	$(BIN)/analysis report $(DEMO)/run/ckpt.pt --out $(DEMO)/report

explore: $(VENV)/installed-explore  ## the pretrained model in your browser
	$(BIN)/analysis explore

test: $(VENV)/installed-dev  ## the whole suite, under 12 minutes on 2 cores
	$(BIN)/pytest -n 3 --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --warnings

bench: $(VENV)/installed-dev  ## ratios taken in one run each; see docs/performance.md
	$(BIN)/python benchmarks/preprocessing.py
	$(BIN)/python benchmarks/feed.py
	$(BIN)/python benchmarks/mmd.py
	$(BIN)/python benchmarks/train.py

bench-gpu: $(VENV)/installed-dev  ## everything that needs a GPU, in at most 8 minutes
	$(BIN)/python benchmarks/gpu.py

faults: $(VENV)/installed-dev  ## every fault test of docs/faults.md, under 45 minutes on 2 cores
	$(BIN)/python -m tests.faults $(OPTIONS)

docs: $(VENV)/installed-dev  ## the pages that are generated from code
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python benchmarks/scaling.py

clean:
	rm -rf $(DEMO)
