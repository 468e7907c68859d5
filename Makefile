# Two commands do all the set-up: `make demo` and `make test`. Everything goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo
PROMPT ?= a white sun on the left in a blue sky over the desert with two red houses and clouds
SEED   ?= 4
PROCESSES ?= 2
# One more than there are cores: tests of launchers and of Ray wait much of their time.
WORKERS   ?= 3
# Compiled files are kept: the tests start about a hundred processes. Freed memory is kept too: to give tensors
# back to the system and fetch them again took a tenth of the golden renders' CPU seconds.
MALLOC := MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=1073741824
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(MALLOC) $(BIN)/python -m pytest

.PHONY: help demo test test-bench test-hosts check lint bench results chaos clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        install, then render a poster at 2x and 4x the model's native size"
	@echo "make test        install, then run the test suite: 10 to 15 minutes on 2 cores"
	@echo "make test-bench  tests that the benchmarks run"
	@echo "make test-hosts  tests on many machines, made of network namespaces (as root)"
	@echo "make check       ruff, mypy, all tests: CI runs it after make demo"
	@echo "make bench       the benchmarks behind BENCHMARKS.md"
	@echo "make results     every study of the paper at full size, and RESULTS.md"
	@echo "make chaos       a batch under random faults"

# Without a GPU the CPU build of torch is taken where pip can find one; see GUIDE, "Install".
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@command -v nvidia-smi >/dev/null || $(BIN)/pip install --quiet "torch==2.13.0+cpu" 2>/dev/null \
		|| echo "no CPU-only build of torch is on offer here; taking the default build"
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/.installed
	@mkdir -p $(OUT)
	@$(BIN)/imax generate "$(PROMPT)" -q --overwrite --seed $(SEED) --size 256x256 --out $(OUT)/native.png
	@$(BIN)/imax generate "$(PROMPT)" -q --overwrite --seed $(SEED) --size 512x512 --out $(OUT)/poster-2x.png
	@$(BIN)/imax generate "$(PROMPT)" -q --overwrite --seed $(SEED) --size 1024x1024 --out $(OUT)/poster-4x.png
	@$(BIN)/imax generate "$(PROMPT)" -q --overwrite --seed $(SEED) --size 1024x1024 --preset direct --out $(OUT)/direct-4x.png
	@$(BIN)/imax study sheet $(OUT)/native.png $(OUT)/poster-4x.png $(OUT)/direct-4x.png \
		--crop 80,540,380,340 --whole --heads "native, 256 px" "imax, 1024 px" "without the method, 1024 px" --out $(OUT)/sheet.png
	@echo "Look at $(OUT)/sheet.png: the native picture (enlarged), the poster, the model without the method, and the same part of each at 1:1."

# A file a worker, the longest first (tests/conftest.py): what a file's tests share is started once.
test: $(VENV)/.installed-dev
	@$(PYTEST) -m "not hosts and not bench" -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test test-bench test-hosts

bench: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.guidance_step
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.step
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.step_cache
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/adapters.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/weights.py
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.engines
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.render
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.vae
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.pool
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.serve
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.plan
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.plan --gpus

results: $(VENV)/.installed-dev
	$(BIN)/imax study all --out out/results --processes $(PROCESSES)

test-bench: $(VENV)/.installed-dev
	@$(PYTEST) -m bench

test-hosts: $(VENV)/.installed-dev
	$(PYTEST) -m hosts -rs

chaos: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.run --seed 1

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache
