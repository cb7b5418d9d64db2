# make book [PROFILE=quick|laptop|gpu|paper] [SET="train.steps=3 ..."]   environment, all chapters, the HTML book
# make bench   all benchmarks beside their rivals, into the book (~10 minutes on 2 quiet cores)
# make test    environment, browser if missing, all checks        make lab    JupyterLab on the chapters
# make oldest  tests of models and heads with the oldest transformers and peft
# make cluster what profiles/slurm and profiles/kubernetes need
# make site    the published run as HTML, nothing computed        make clean  remove what can be made again in minutes
PROFILE ?= quick
SET ?=
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
BACKBONE := $${VITMECH_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/vitmech}/dinov2-small/model.safetensors
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
export JUPYTER_PLATFORM_DIRS := 1

.DEFAULT_GOAL := book
.PHONY: book bench test oldest lab site clean distclean env backbone browser slurm cluster lint

book: env backbone
	snakemake --cores all --nolock --rerun-incomplete --quiet rules host --config profile=$(PROFILE) set="$(SET)"
	vitmech book --profile $(PROFILE)

site: env
	vitmech book --run-dir published

lab: env backbone
	jupyter lab --ServerApp.root_dir=$(CURDIR) notebooks/01_chirp_spectrograms.ipynb

# Unit tests, one thread, beside those that run notebooks, build books and drive the browser; the former's report comes last.
UNITS := not pipeline and not browser
UNITS_REPORT := results/.units.log
test: env backbone browser slurm cluster lint
	@mkdir -p results; OMP_NUM_THREADS=1 pytest -m "$(UNITS)" > $(UNITS_REPORT) 2>&1 & units=$$!; \
	trap 'kill $$units 2>/dev/null' INT TERM; \
	pytest -m "not ($(UNITS))"; rest=$$?; wait $$units; failed=$$?; cat $(UNITS_REPORT); exit $$((rest + failed))

bench: env backbone browser
	python benchmarks/run.py --fetch

# The tests of models and heads with the oldest releases that are admitted, laid over the environment.
OLDEST := results/oldest
oldest: env
	test -f $(OLDEST)/.done || { $(PIP) install --no-deps --target $(OLDEST) -r requirements-oldest.txt && touch $(OLDEST)/.done; }
	OMP_NUM_THREADS=1 PYTHONPATH=$(OLDEST) pytest tests/test_oldest.py tests/test_model_*.py tests/test_heads_*.py -m "not pipeline"

lint: env
	ruff check
	ruff format --check

env: $(VENV)/.torch $(VENV)/.locked $(VENV)/.package

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with its venv module was found."; \
	  echo "Install one (Debian and Ubuntu: apt-get install python3 python3-venv), or say PYTHON=/path/to/python3.11."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch first and by itself, with what it needs: its builds differ from platform to platform.
$(VENV)/.torch: $(VENV)/.made requirements.lock
	$(PIP) install "$(TORCH)"
	touch $@

$(VENV)/.locked: $(VENV)/.torch requirements.lock
	$(PIP) install --no-deps -r requirements.lock
	touch $@

$(VENV)/.package: $(VENV)/.locked pyproject.toml
	$(PIP) install --no-deps -e .
	touch $@

cluster: $(VENV)/.cluster

$(VENV)/.cluster: $(VENV)/.locked requirements-cluster.lock
	$(PIP) install --no-deps -r requirements-cluster.lock
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

clean:
	rm -rf book/_build results/quick .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Also the environment and every run folder, trainings of an hour included.
distclean: clean
	rm -rf $(VENV) results .snakemake *.egg-info
