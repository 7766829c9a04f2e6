# Everyday spellings. Each target is one command a person could type; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV   := .venv
PY     := $(VENV)/bin/python
# The first suitable Python on the path: 3.11 or 3.12.
PYTHON ?= $(shell for candidate in python3 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$candidate && break; done)
JOBS   := $(PY) -m jobs

# Processes are the parallelism in tests: two OpenMP pools on two busy cores cost far more than they bring.
TEST_ENV := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1 MPLBACKEND=Agg TOKENIZERS_PARALLELISM=false
TEST_WORKERS ?= 2

# Keys of the everyday targets, passed on only when set; anything else goes through ARGS='dotted.key=value …'.
set_if = $(if $(strip $($(1))),$(2)=$($(1)))
ARGS   ?=
EXECUTOR_ARGS = $(call set_if,EXECUTOR,executor) $(call set_if,WORKERS,workers)

.PHONY: help setup system-packages demo test test-slow check format shards concepts negatives pretrain finetune evaluate report bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "  Further keys: ARGS='dotted.key=value …'; every verb explains its own: $(PY) -m jobs <verb> --help"

setup: $(VENV)/.ready ## make .venv from the lock file and install or name the system packages (quick the second time)

$(VENV)/.ready: requirements.lock
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or 3.12 on the path; install one or run 'make setup PYTHON=/path/to/python'"; exit 1; }
	@$(MAKE) --no-print-directory system-packages
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@# Compiled once here: Python without byte code recompiles torch and ray in every worker process.
	PYTHONDONTWRITEBYTECODE= UV_COMPILE_BYTECODE=1 $(VENV)/bin/uv pip install --python $(PY) --require-hashes -r requirements.lock
	@touch $@

system-packages:
	@missing=""; \
	command -v ffmpeg >/dev/null || missing="$$missing ffmpeg"; \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$$missing chromium fonts-dejavu-core"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "setup: installing$$missing"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null 2>&1 \
		|| echo "setup: could not install$$missing; install them by hand for video and for the tests that render reports"; \
	else echo "setup: missing system packages:$$missing (for video and for the tests that render reports); the rest works without"; fi

demo: setup ## the whole path on a small rendered world; TASKS=all, or some of "vqa entailment nlvr2 grounding", for the tasks, too
	$(JOBS) demo $(call set_if,OUT,output) $(call set_if,SCALE,scale) $(if $(strip $(TASKS)),tasks="$(TASKS)") $(ARGS)

test: check ## everything this machine can test; needs no network and no GPU
	$(TEST_ENV) $(PY) -m pytest -q -n $(TEST_WORKERS) --dist loadfile -m "not ray and not slow and not gpu" $(PYTEST_ARGS)
	$(TEST_ENV) $(PY) -m pytest -q -m "ray and not slow and not gpu" $(PYTEST_ARGS)

test-slow: setup ## the tests that take as long as the demo: what it must learn
	$(TEST_ENV) $(PY) -m pytest -q -m "slow and not gpu" $(PYTEST_ARGS)

check: setup ## format, lint, types, and the table of rooms
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(TEST_ENV) $(PY) -m pytest -q tests/test_architecture.py

format: setup ## rewrite the sources in the project's format
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

shards: setup ## raw data to shards: SOURCE=coco_captions ANNOTATIONS=… MEDIA=… OUT=… [SPLIT= EXECUTOR=ray WORKERS=]
	$(JOBS) shards $(PRESET) $(call set_if,SOURCE,source.kind) $(call set_if,ANNOTATIONS,source.annotations) \
		$(call set_if,MEDIA,source.media) $(call set_if,SPLIT,source.split) $(call set_if,OUT,output) $(EXECUTOR_ARGS) $(ARGS)

concepts: setup ## visual concepts of a dataset: DATASET=… [MODEL=ViT-B-16 PRETRAINED=openai TOP_K=15 EXECUTOR= WORKERS=]
	$(JOBS) concepts $(PRESET) $(call set_if,DATASET,dataset) $(call set_if,MODEL,embedder.model) \
		$(call set_if,PRETRAINED,embedder.pretrained) $(call set_if,TOP_K,top_k) $(call set_if,OUT,output) $(EXECUTOR_ARGS) $(ARGS)

negatives: setup ## hard captions, answers and swaps as a sidecar: DATASET=…
	$(JOBS) negatives $(PRESET) $(call set_if,DATASET,dataset) $(EXECUTOR_ARGS) $(ARGS)

pretrain: setup ## pretrain from shards: DATASET=… OUT=… [PRESET=vicha_small CONCEPTS=concepts EXECUTOR= WORKERS=]
	$(JOBS) train $(or $(PRESET),vicha_small) $(call set_if,DATASET,streams.data.dataset) \
		$(call set_if,CONCEPTS,streams.data.concepts) $(call set_if,OUT,output) $(EXECUTOR_ARGS) $(ARGS)

finetune: setup ## fine-tune a pretrained run: DATASET=… INIT=… OUT=… [PRESET=vicha_small_retrieval CONCEPTS=]
	$(JOBS) train $(or $(PRESET),vicha_small_retrieval) $(call set_if,DATASET,streams.data.dataset) \
		$(call set_if,CONCEPTS,streams.data.concepts) $(call set_if,INIT,init) $(call set_if,OUT,output) $(EXECUTOR_ARGS) $(ARGS)

evaluate: setup ## score a run on a dataset: CHECKPOINT=… DATASET=… OUT=… [CONCEPTS=]
	$(JOBS) evaluate $(PRESET) $(call set_if,CHECKPOINT,checkpoint) $(call set_if,DATASET,dataset) \
		$(call set_if,CONCEPTS,concepts) $(call set_if,OUT,output) $(ARGS)

report: setup ## one self-contained page: RUN=… and/or DATASET=… OUT=report.html
	$(JOBS) report $(call set_if,RUN,run) $(call set_if,DATASET,dataset) $(call set_if,OUT,output) $(ARGS)

bench: setup ## records per second of every step, ours against peers and the machine's own floor
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.whole_path $(ARGS)

clean: ## remove caches and what the demo wrote; keeps .venv and runs elsewhere
	rm -rf runs/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
