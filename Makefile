# One entry for everything. `make help` lists the targets; each says what it does and is safe twice.
SHELL := /bin/bash
PROFILE ?= default
SEED ?=
CORES ?= 2
MINUTES ?= 30
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a user gives reaches the shell as a variable's value, whatever signs it holds.
override SEED := $(value SEED)
# Another seed of training is a profile of its own, in a folder of its own: the same cohort, other luck.
override PROFILE := $(value PROFILE)$(if $(SEED),-seed$(SEED))
override CORES := $(value CORES)
override MINUTES := $(value MINUTES)
override DATA := $(value DATA)
override WEIGHTS := $(value WEIGHTS)
override EMBEDDINGS := $(value EMBEDDINGS)
override PYTHON := $(value PYTHON)
export PROFILE CORES MINUTES DATA WEIGHTS EMBEDDINGS PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_OFFLINE := 1
# JupyterLab would ask PyPI for updates and its own site for news.
QUIET := --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.news_url=None \
  --LabApp.extension_manager=readonly
.DEFAULT_GOAL := help
.PHONY: help setup figures site test fuzz profiles bench marks browser offline lint format lab redraw clean

help: ## List the targets
	@echo "Reproducible companion to Merlin. Start with: make figures PROFILE=smoke"
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo "Profiles: $$(cd notebooks/profiles && ls *.yaml | sed 's/.yaml//' | tr '\n' ' ')(PROFILE=name, default: default)"

setup: $(VENV)/ready ## Create .venv with pinned packages (about 3 GB)

$(VENV)/ready: pyproject.toml $(wildcard locks/*.txt) scripts/setup.sh
	@bash scripts/setup.sh "$(VENV)"

figures: setup ## Run the notebooks of PROFILE in order and fill figures/ (SEED=7: with another seed)
	@$(BIN)/python -m merlin.run check "$$PROFILE"
	@$(BIN)/python -m merlin.run figures "$$PROFILE" --cores "$$CORES" \
	  --data="$$DATA" --weights="$$WEIGHTS" --embeddings="$$EMBEDDINGS"

site: setup ## Render what PROFILE ran as a static site in site/ (open site/index.html)
	@$(BIN)/python -m merlin.site.build "$$PROFILE" site

test: setup ## Run the tests, CORES at a time (minutes on two)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n "$$CORES" --dist worksteal

fuzz: setup ## Send damaged files to every reader for MINUTES (default: 30)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/long_run.py --minutes "$$MINUTES"

profiles: setup ## Run profiles of the full tier end to end on a look-alike (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m profiles tests/run/test_profiles.py

bench: setup ## Compare speed and memory with the other way, with the machine's name
	@$(BIN)/python scripts/bench.py

marks: setup ## Plant marks in headers, paths, cells, the environment, and search all that is written
	@$(BIN)/python scripts/planted_marks.py

browser: setup ## Tests of the site and of every notebook in JupyterLab, in headless Chromium
	@$(BIN)/pip install -q --require-hashes --no-deps -r locks/browser.txt && $(BIN)/python -m pytest -m browser -rs tests/browser

offline: setup ## Tests, then smoke and its site, where no network is (Linux)
	@bash scripts/offline.sh $(MAKE) test figures site PROFILE=smoke

lint: setup ## Check style, import layers, types and notebook form
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy && \
	  $(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

format: setup ## Mend what lint can mend
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; $(BIN)/nbstripout --keep-id notebooks/*.ipynb

lab: setup ## Open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(QUIET)

redraw: setup ## Redraw every figure from its committed tables, without training
	@$(BIN)/python -m merlin.figures.redraw figures

clean: ## Remove runs/ of PROFILE (results and caches); figures/ and .venv stay
	@[[ "$$PROFILE" =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$$ ]] || \
	  { echo "Name a profile: make clean PROFILE=smoke"; exit 1; }
	@echo "Removing runs/$$PROFILE"; rm -rf -- "runs/$$PROFILE"
