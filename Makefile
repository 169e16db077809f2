# Every target works from a fresh clone: it needs Python 3.11 to 3.13, make and a package index.
# Options go in ARGS: make run ARGS="--env smoke --params federation.num_rounds=2"
.DEFAULT_GOAL := help
.PHONY: help run audit cifar10 sweep claims bench gpu-check test test-federation test-adapters \
	test-all mutants lint format ui viz docs sbom lock clean distclean

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
ARGS ?=
PORT ?= 5000
BIN := .venv/bin
READY := .venv/.ready
# Test files side by side, one thread each; the longest file alone takes about a minute.
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: $(READY) ## train, sample and score every arm, then compare them
	@$(BIN)/kedro run --pipelines all_arms $(ARGS)

audit: $(READY) ## attack the trained arms, and compare them again with fidelity against privacy
	@$(BIN)/kedro run --pipelines privacy_audit,comparison $(ARGS)

# ARGS=--only-missing-outputs skips what finished arms have already; unfinished ones resume either way.
cifar10: $(READY) ## every arm on CIFAR-10, sized for one large GPU (docs/cifar10.md; resumes)
	@$(BIN)/kedro run --env cifar10_h200 $(ARGS)

sweep: $(READY) ## a grid of runs: make sweep SWEEP=beta_alpha (conf/sweeps; resumes)
	@[ -n "$(SWEEP)" ] || { echo "name one: make sweep SWEEP=<name>; there are" \
		$(basename $(notdir $(wildcard conf/sweeps/*.yml))) >&2; exit 2; }
	@$(BIN)/kedro sweep $(SWEEP) $(ARGS)

claims: $(READY) ## the paper's figures and claims, over seeds and partitions (resumes)
	@$(BIN)/kedro claims $(ARGS)

bench: $(READY) ## ratios of speed into benchmarks/latest.json (docs/speed.md); ARGS names some
	@$(BIN)/python -W ignore::DeprecationWarning -m benchmarks $(ARGS)

gpu-check: $(READY) ## what only a GPU can show, in four minutes (docs/speed.md); ARGS="--device cpu"
	@$(BIN)/python -W ignore -m benchmarks.gpu_check $(ARGS)

test: $(READY) ## the tests that take seconds
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(WORKERS) $(ARGS)

# With the extra `ray` the third engine is held against the other two as well.
test-federation: $(READY) ## a federation over TLS on loopback gives the bits of in_process (a minute or two)
	@$(BIN)/python -m pytest -rs \
		tests/federated/engines/test_deployment.py::test_nodes_over_tls_give_the_bits_of_in_process \
		tests/federated/engines/test_deployment.py::test_a_stranger_with_the_authority_reaches_nothing_but_the_nodes_own_paths \
		tests/federated/engines/test_deployment.py::test_a_site_cannot_unregister_another_nor_register_itself \
		tests/federated/engines/test_ray.py::test_ray_ends_with_the_bits_of_in_process $(ARGS)

test-adapters: $(READY) ## the tests of model.lora; installs its extra first
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[lora]"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) tests/diffusion/test_lora.py \
		tests/api/test_dry_run.py \
		tests/federated/test_adapters.py tests/pipelines/test_adapted_arm.py $(ARGS)

test-all: $(READY) ## all tests
	@$(BIN)/python -m pytest $(ARGS)

# ARGS="--only federated/strategy" takes one file's changes.
mutants: $(READY) ## change the code line by line: does a test fail for each? (half an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore benchmarks/mutants.py $(ARGS)

lint: $(READY) ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

ui: $(READY) ## the runs side by side in MLflow, on http://127.0.0.1:5000 (PORT=...)
	@$(BIN)/kedro ui --port $(PORT) $(ARGS)

viz: $(READY) ## the pipeline, with previews, in kedro-viz
	@$(BIN)/kedro viz run $(ARGS)

# Their packages are no part of the environment until somebody asks for them.
docs: $(READY) ## the pages of docs/ as a searchable site in site/ (python3 -m http.server -d site)
	@[ -x $(BIN)/mkdocs ] || $(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

sbom: $(READY) ## the installed components as CycloneDX JSON: sbom.json
	@[ -x $(BIN)/cyclonedx-py ] || $(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[sbom]"
	@$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
		--output-file sbom.json $(ARGS)

lock: $(READY) ## resolve requirements.lock anew from pyproject.toml (UPGRADE=--upgrade for newer)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra efficientnet --universal --python-version 3.11 \
		--no-emit-index-url --generate-hashes --quiet $(UPGRADE) -o requirements.lock

clean: ## remove results, tracked runs and caches; keep raw data and the environment
	@for layer in data/0[2-8]_*; do find "$$layer" -mindepth 1 ! -name .gitkeep -delete; done
	@for layer in data/*/0[2-8]_* data/.locks data/*/.locks; do \
		case "$$layer" in data/0*) ;; *) rm -rf "$$layer" ;; esac; done
	@rm -rf site sbom.json data/gpu_check mlflow.db mlflow.db.lock mlruns .viz logs .pytest_cache .ruff_cache .mypy_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment as well
	@rm -rf .venv

$(READY): requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] && "$(PYTHON)" -c '$(SUITABLE)' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; got '$(PYTHON)'" \
		"($$($(or $(PYTHON),python3) --version 2>&1));" \
		"name one: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@echo "Installing into .venv (a minute or two; only once)"
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv .venv
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes \
		-r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
