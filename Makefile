# One entry for everything. `make help` lists the targets; each says what it does and is safe twice.
SHELL := /bin/bash
PROFILE ?= default
CORES ?= 2
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a user gives reaches the shell as a variable's value, whatever signs it holds.
override PROFILE := $(value PROFILE)
override CORES := $(value CORES)
override DATA := $(value DATA)
override WEIGHTS := $(value WEIGHTS)
override EMBEDDINGS := $(value EMBEDDINGS)
export PROFILE CORES DATA WEIGHTS EMBEDDINGS
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_OFFLINE := 1
.DEFAULT_GOAL := help
.PHONY: help setup figures site test bench marks browser lint format lab redraw clean

help: ## List the targets
	@echo "Reproducible companion to Merlin. Start with: make figures PROFILE=smoke"
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo "Profiles: $$(cd notebooks/profiles && ls *.yaml | sed 's/.yaml//' | tr '\n' ' ')(PROFILE=name, default: default)"

setup: $(VENV)/ready ## Create .venv with pinned packages (about 3 GB)

$(VENV)/ready: pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" bash scripts/setup.sh "$(VENV)"

figures: setup ## Run the notebooks of PROFILE in order and fill figures/
	@$(BIN)/python -m merlin.run check "$$PROFILE"
	@$(BIN)/python -m merlin.run figures "$$PROFILE" --cores "$$CORES" \
	  --data="$$DATA" --weights="$$WEIGHTS" --embeddings="$$EMBEDDINGS"

site: setup ## Render what PROFILE ran as a static site in site/ (open site/index.html)
	@$(BIN)/python -m merlin.site.build "$$PROFILE" site

test: setup ## Run the tests, CORES at a time (minutes on two)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n "$$CORES" --dist worksteal

bench: setup ## Compare speed and memory with the other way, with the machine's name
	@$(BIN)/python scripts/bench.py

marks: setup ## Plant marks in headers, paths, cells, the environment, and search all that is written
	@$(BIN)/python scripts/planted_marks.py

browser: setup ## Tests of the site and of every notebook in JupyterLab, in headless Chromium
	@$(BIN)/pip install -q -c constraints.txt playwright && $(BIN)/python -m pytest -m browser -rs tests/browser

lint: setup ## Check style, import layers and notebook form
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && \
	  $(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

format: setup ## Mend what lint can mend
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; $(BIN)/nbstripout --keep-id notebooks/*.ipynb

lab: setup ## Open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=notebooks

redraw: setup ## Redraw every figure from its committed tables, without training
	@$(BIN)/python -m merlin.figures.redraw figures

clean: ## Remove runs/ of PROFILE (results and caches); figures/ and .venv stay
	@[[ "$$PROFILE" =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$$ ]] || \
	  { echo "Name a profile: make clean PROFILE=smoke"; exit 1; }
	@echo "Removing runs/$$PROFILE"; rm -rf -- "runs/$$PROFILE"
