# Set-up, demo, tests and benchmarks. `make help` lists the targets.
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
RUN      := $(VENV)/bin/python
STAMP    := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint docs bench study-small clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo
	@echo 'variables: PYTHON=$(PYTHON)  VENV=$(VENV)  PIP_ARGS=$(PIP_ARGS)'

setup: $(STAMP)  ## make the environment in $(VENV)

# The stamp depends on pyproject.toml: a second call starts at once, a changed dependency installs again.
$(STAMP): pyproject.toml
	@echo 'Setting up $(VENV). The default torch build on Linux brings CUDA libraries: about 5.6 GB on disk.'
	@echo 'For the CPU-only build (under 1 GB) see "Install" in README.md.'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install $(PIP_ARGS) -e '.[dev]'
	$(RUN) -m gen.system.preflight
	@touch $@

demo: $(STAMP)  ## train a DCGAN and a VAE, sample both, measure their checkerboards
	$(RUN) -m gen demo

test: $(STAMP)  ## run the tests
	$(RUN) -m pytest -m 'not slow'

test-slow: $(STAMP)  ## run the tests that take minutes
	$(RUN) -m pytest -m slow

lint: $(STAMP)  ## check style and spelling
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/typos

docs: $(STAMP)  ## build the site with guides, API reference and search in build/docs
	rm -rf build/pages build/docs && mkdir -p build/pages
	cp -r README.md CHANGELOG.md CONTRIBUTING.md docs docs/site/*.md build/pages
	$(RUN) -m sphinx -W --keep-going -q -c docs/site build/pages build/docs

bench: $(STAMP)  ## compare speed with what one would run instead (3 minutes)
	$(RUN) benchmarks/speed/performance.py

# The rows of shapes in docs/study.md. Runs that are in runs/study are not run again.
STUDY := OMP_NUM_THREADS=1 $(RUN) benchmarks/study/study.py --upsamplers \
	transposed-k3 transposed-k4 balanced-k4 nearest bilinear subpixel
study-small: $(STAMP)  ## train and measure 36 small networks, as docs/study.md did, in two processes
	$(STUDY) --shard 0/2 & $(STUDY) --shard 1/2; wait
	$(RUN) benchmarks/study/report.py

clean:  ## remove the environment and caches; runs/ is kept
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis gen.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
