# Verbs of one word.  Each makes the environment it needs: python3 (3.11+), a C++20 compiler and git are enough.
#   make demo    the main job on real patients' data          make test    lint-free quick proof (a few minutes)
#   make bench   every kernel and the file merge, as ratios    make slow    long tests: big files, fuzzing, sanitizers
#   make faults  node processes killed, stopped, cut off
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
NATIVE_SOURCES := setup.py $(wildcard native/*.cpp native/*.h native/cuda/*) $(wildcard src/shoal/model/*.pyx src/shoal/model/*.pxi)

.PHONY: build demo test slow faults lint format bench plots fuzz sim docs lock clean
.DELETE_ON_ERROR:

# The requirements of an extra, read from pyproject.toml (pip alone would build the project anew to tell them).
define EXTRA
$(shell $(PYTHON) -c 'import tomllib,re; t = tomllib.load(open("pyproject.toml","rb"))["project"]["optional-dependencies"]; \
f = lambda n: [x for d in t[n] for x in ([y for m in re.findall("\\w+", d[6:-1]) for y in f(m)] if d.startswith("shoal[") else [d])]; \
print(*("\"" + r + "\"" for r in f("$(1)")))')
endef

$(VENV)/.base: pyproject.toml constraints.txt
	@echo "making $(VENV): tools to build with, numpy, onnx ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) 'setuptools>=77' wheel 'pybind11>=3.0,<4' 'Cython>=3.1,<4' numpy
	SHOAL_ONLY=none $(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.build: $(VENV)/.base $(NATIVE_SOURCES)
	@echo "building the native core ..."
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(BIN)/python -m compileall -q src/shoal
	@touch $@

$(VENV)/.demo: $(VENV)/.build
	$(PIP) $(call EXTRA,demo)
	@touch $@

$(VENV)/.test: $(VENV)/.build
	$(PIP) $(call EXTRA,test)
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) $(call EXTRA,lint)
	@touch $@

build: $(VENV)/.build

demo: $(VENV)/.demo
	$(BIN)/shoal demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and not faults" $(ARGS)

slow: $(VENV)/.test fuzz
	$(BIN)/python -m pytest -m "slow and not faults" $(ARGS)

# one role: ARGS="-k leader"; processes stopped for a minute: ARGS="--pause 60"; the table as JSON: ARGS="--table faults.json"
faults: $(VENV)/.test
	$(BIN)/python -m pytest tests/faults -m faults $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(wildcard native/*.cpp native/*.h native/cuda/*)

format: $(VENV)/.lint
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	$(BIN)/clang-format -i $(wildcard native/*.cpp native/*.h native/cuda/*)

bench: $(VENV)/.test
	$(BIN)/python bench/run.py $(ARGS)

plots: $(VENV)/.test
	$(BIN)/python bench/plots.py $(ARGS)

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test
	-$(PIP) atheris
	$(BIN)/python fuzz/fuzz_index.py --seconds $(FUZZ_SECONDS)
	$(BIN)/python fuzz/fuzz_ledger.py --seconds $(FUZZ_SECONDS)
	$(BIN)/python fuzz/fuzz_update.py --seconds $(FUZZ_SECONDS)

# one history: SEED=7; many: SEEDS=5000 STEPS=500; with a rule switched off: MUTATE=commit-any-term, MUTATE=all
# whole rounds: ROUNDS=5000 histories, and some of up to 100 members; one of them: ROUNDS=1 SEED=7; ROUNDS=1 MUTATE=all
sim: $(VENV)/.test
	$(if $(ROUNDS),$(BIN)/python tests/sim/rounds/sweep.py --seeds $(ROUNDS) --crowds $(if $(SEED),--seed $(SEED)) $(if $(MUTATE),--mutate $(MUTATE)) $(ARGS),\
	$(BIN)/python tests/sim/run.py $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(STEPS),--steps $(STEPS)) \
	$(if $(MUTATE),--mutate $(MUTATE)) $(ARGS))

docs: $(VENV)/.test
	$(BIN)/python -m pytest tests/test_documents.py tests/test_operations.py $(ARGS)

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet setuptools wheel 'pybind11>=3.0,<4' 'Cython>=3.1,<4' numpy
	$(VENV)-lock/bin/pip install --quiet --no-build-isolation --editable '.[demo,test,lint]'
	$(VENV)-lock/bin/pip freeze --exclude-editable >> constraints.new
	mv constraints.new constraints.txt; rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) build dist src/*.egg-info demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src -name '*.so' -delete; rm -f src/shoal/model/_onnx_index.c
