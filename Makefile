# make book [PROFILE=quick|laptop|gpu|paper] [SET="train.steps=3 ..."]   environment, all chapters, the HTML book
# make site    the published run as HTML, nothing computed        make lab    JupyterLab on the chapters
# make pdf     the book that was built last, as one PDF
# make check   lint, and the tests of what changed since main (minutes)
# make test    environment, browser if missing, all checks        make test-all  also what repeats them at length
# make oldest  tests of models and heads with the oldest transformers and peft; make newest: with the newest admitted
# make timm    tests of models and images of timm and torchvision themselves
# make bench   all benchmarks beside their rivals, into the book (~15 minutes on 2 quiet cores)
# make links   every link of the published book that leads outside
# make audit   known vulnerabilities of what the lock names
# make hashes  the hashes of the locks, after an edit to one
# make cluster what profiles/slurm and profiles/kubernetes need   make clean  remove what can be made again in minutes
PROFILE ?= quick
SET ?=
VENV ?= .venv
# Of each chapter: two or three are at work side by side, which takes less time than more threads in one.
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
THREADS ?= $(shell expr \( $(CORES) + 2 \) / 3)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
.DEFAULT_GOAL := book

# Of two makes in one clone the second waits, but for `make lab`, which goes on for as long as you read.
GOALS := $(or $(MAKECMDGOALS),$(.DEFAULT_GOAL))
ifeq ($(VITMECH_MAKE_LOCKED)$(if $(filter-out lab,$(GOALS)),,lab)$(if $(PYTHON),,none),)
.PHONY: $(GOALS) one-at-a-time
$(GOALS): one-at-a-time ;
one-at-a-time:
	+@VITMECH_MAKE_LOCKED=1 $(PYTHON) tools/one_at_a_time.py .make/lock $(MAKE) --no-print-directory $(GOALS)
else

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV := $(shell command -v uv 2>/dev/null)
# Bytecode is made when a module is first imported: most of what is installed never is.
LOCKED := --no-deps --require-hashes
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
BACKBONE := $${VITMECH_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/vitmech}/dinov2-small/model.safetensors
export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONNOUSERSITE := 1
# What is imported a hundred times is compiled once, whatever the shell says of its own processes.
unexport PYTHONDONTWRITEBYTECODE
export JUPYTER_PLATFORM_DIRS := 1

.PHONY: book pdf bench check test test-all oldest newest timm lab site links audit hashes clean distclean env backbone browser slurm
.PHONY: cluster types lint how-long halves

book: how-long env backbone
	python -m vitmech_utils.pipeline.warm.server --threads $(THREADS) snakemake --cores all --nolock --rerun-incomplete --quiet rules host --config profile=$(PROFILE) set="$(SET)" threads=$(THREADS)
	vitmech book --profile $(PROFILE)

how-long:
	@$(PYTHON) tools/how_long.py --profile $(PROFILE) --environment $(VENV)/.package

site: env
	vitmech book --run-dir published

pdf: env browser
	vitmech pdf

lab: env backbone
	jupyter lab --ServerApp.root_dir=$(CURDIR) notebooks/01_chirp_spectrograms.ipynb

# Lint, and the tests of what differs from main, nearest first, for as long as a hand waits.
check: lint
	OMP_NUM_THREADS=1 python tools/tests_of_changes.py

# Two halves side by side: units and what runs by itself, and what shares one run of the series. The former's report
# comes last. Commands that the tests call are forks of one process that has imported what they need.
UNITS := (not pipeline and not browser) or alone
UNITS_REPORT := results/.units.log
test: env backbone browser slurm cluster types lint
	@mkdir -p results; python -m vitmech_utils.pipeline.warm.server --threads 1 $(MAKE) --no-print-directory halves

halves:
	@pytest --durations=30 -m "$(UNITS)" > $(UNITS_REPORT) 2>&1 & units=$$!; \
	trap 'kill $$units 2>/dev/null' INT TERM; \
	pytest --durations=30 -m "not ($(UNITS))"; rest=$$?; wait $$units; failed=$$?; cat $(UNITS_REPORT); exit $$((rest + failed))

# The same, and what it repeats at length: every notebook under nbval by itself, and every one in JupyterLab.
test-all: export VITMECH_TESTS := all
test-all: test

bench: env backbone browser
	python benchmarks/run.py --fetch

# The tests of models and heads with the oldest releases that are admitted, laid over the environment.
OLDEST := results/oldest
oldest: env
	test -f $(OLDEST)/.done || { $(PIP) install --no-deps --target $(OLDEST) -r requirements-oldest.txt && touch $(OLDEST)/.done; }
	OMP_NUM_THREADS=1 PYTHONPATH=$(OLDEST) pytest tests/test_oldest.py tests/test_model_*.py tests/test_heads_*.py -m "not pipeline"

# The same tests with the newest that pyproject.toml admits: an environment over this one, which holds what is newer.
NEWEST := results/newest
newest: env
	rm -rf $(NEWEST)
	$(BIN)/python -m venv $(NEWEST)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(NEWEST)/lib/python3.*/site-packages)/locked.pth
	$(NEWEST)/bin/python -m pip --disable-pip-version-check install --upgrade -e . transformers peft accelerate
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest tests/test_oldest.py tests/test_model_*.py tests/test_heads_*.py -m "not pipeline"

# Models of timm and torchvision themselves: torchvision's own files, laid over the environment, which holds timm.
TIMM := results/timm
timm: env
	test -f $(TIMM)/.done || { $(PIP) install --no-deps --target $(TIMM) -r requirements-timm.txt && touch $(TIMM)/.done; }
	OMP_NUM_THREADS=1 PYTHONPATH=$(TIMM) pytest tests/test_timm.py tests/test_support_matrix.py

lint: env
	ruff check
	ruff format --check

links: env
	vitmech stage --run-dir published
	jupyter-book build book/_build/src --path-output book/_build/links --builder linkcheck

# By the package index's own list of vulnerabilities; asks it about every line of the lock.
audit: env
	$(BIN)/python -m venv results/audit
	results/audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit
	results/audit/bin/pip-audit --disable-pip --no-deps -r requirements.lock -r requirements-cluster.lock

# All files that the index has of each release, for every platform and the three Pythons. Torch is installed by its
# version alone: the builds for processors, CUDA and macOS come from different places.
HASH := uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-config --no-emit-package torch
hashes:
	@command -v uv > /dev/null || { echo "make hashes wants uv: pip install uv"; exit 1; }
	rm -f requirements-hashes.lock requirements-cluster-hashes.lock
	$(HASH) requirements.lock --output-file requirements-hashes.lock
	$(HASH) requirements-cluster.lock --output-file requirements-cluster-hashes.lock

env: $(VENV)/.locked $(VENV)/.torch $(VENV)/.package

# A current pip first, held against its hashes: the one that Python brings along may be years old.
$(VENV)/.made: requirements-hashes.lock
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with its venv module was found."; \
	  echo "Install one (Debian and Ubuntu: apt-get install python3 python3-venv), or say PYTHON=/path/to/python3.11."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	sed -n '/^pip==/,/[^\\]$$/p' requirements-hashes.lock > $(VENV)/pip.txt
	$(PIP) install --quiet $(LOCKED) -r $(VENV)/pip.txt
	touch $@

# By uv where it is installed, else by pip: the same files, held against the same hashes.
$(VENV)/.locked: $(VENV)/.made requirements-hashes.lock
	$(if $(UV),$(UV) pip install --python $(BIN)/python $(LOCKED) -r requirements-hashes.lock ||) \
	$(PIP) install --no-compile $(LOCKED) -r requirements-hashes.lock
	touch $@

# Torch by itself: its builds differ from platform to platform, and some bring the libraries of CUDA along.
$(VENV)/.torch: $(VENV)/.locked requirements.lock
	$(PIP) install --no-compile "$(TORCH)" --constraint requirements.lock
	touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml
	$(PIP) install --no-deps -e .
	touch $@

cluster: $(VENV)/.cluster

$(VENV)/.cluster: $(VENV)/.locked requirements-cluster-hashes.lock
	$(PIP) install --no-compile $(LOCKED) -r requirements-cluster-hashes.lock
	touch $@

backbone: env
	@test -f "$(BACKBONE)" || python -m vitmech_utils.model.backbones

browser:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
	     && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	|| { echo "The tests drive Chromium, which is not here. Install it (Debian: sudo apt-get install chromium;"; \
	     echo "Fedora: sudo dnf install chromium; macOS: brew install --cask chromium) and run make test again."; exit 1; }

# One test starts a SLURM of its own, as root; elsewhere it is skipped (see tests/SKIPS.md).
slurm:
	@command -v slurmctld > /dev/null || test "$$(id -u)" != 0 || ! command -v apt-get > /dev/null \
	|| { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; } \
	|| echo "SLURM could not be installed: the test that starts one is skipped."

# The types of the head picker's modules; elsewhere their test is skipped (see tests/SKIPS.md).
types:
	@if command -v npm > /dev/null; then cd tools/picker && npm ci --silent --no-audit --no-fund --ignore-scripts; \
	else echo "npm is not here: the types of the picker's modules are not checked."; fi

clean:
	rm -rf book/_build results/quick .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Also the environment and every run folder, trainings of an hour included.
distclean: clean
	rm -rf $(VENV) results .snakemake *.egg-info

endif
