# Swath from a fresh clone. Needs git, make, Python >= 3.11 and pip; everything else is set up in .venv by the
# targets themselves, and a second run finds it there. `make help` lists the targets.
#
#   make demo PYTHON=python3.12    another interpreter
#   make demo DEMO="--minutes 2"   options for `swath demo`
#   make test TESTS=tests/training a part of the suite
#   UV_TORCH_BACKEND=cpu make demo PyTorch without the CUDA libraries (several GB less to fetch)

PYTHON ?= python3
VENV   ?= .venv
TESTS  ?=
DEMO   ?=

BIN     := $(VENV)/bin
comma   := ,
# uv installs in seconds what pip resolves in minutes, but knows nothing of pip's own settings (a mirror, say):
# where it fails, pip has a try.
install = $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt $(1) || \
          { echo "uv could not install; trying pip, which is slower but follows your pip settings"; \
            $(BIN)/python -m pip install --quiet -c constraints.txt $(1); }
# What the tests need besides the core; `all` leaves out ray and torchgeo. A variable, because commas written
# into a call would part its arguments.
EXTRAS  := all,ray
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make constraints" $(BIN)/uv pip compile --quiet pyproject.toml \
           --universal --python-version 3.11 $(patsubst %,--extra %,$(subst $(comma), ,$(EXTRAS))) --group dev --group docs
# Python's sources that lint and types read, apart from the package itself.
SOURCES := src tests benchmarks examples

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint words format types docs docs-serve dist constraints check-constraints bench clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-26s%s\n", $$1, $$2}'

setup: $(VENV)/.stamp-core  ## the package and what it needs, in .venv

demo: $(VENV)/.stamp-core  ## the whole path on sample imagery: pretrain, measure, embed, search, report
	$(BIN)/swath demo --out demo-output $(DEMO)

test: $(VENV)/.stamp-dev  ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=25 $(TESTS)

lint: $(VENV)/.stamp-dev words  ## ruff: rules and formatting; words to avoid
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

words: $(VENV)/.stamp-dev  ## public names that hold a word of tests/avoid_words.txt
	$(BIN)/python -m pytest -q -n0 tests/architecture/test_names.py

format: $(VENV)/.stamp-dev  ## put the formatting right
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(VENV)/.stamp-dev  ## mypy --strict over the package
	$(BIN)/mypy

docs: $(VENV)/.stamp-docs  ## the documentation site, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.stamp-docs  ## the documentation on a local port, rebuilt as you write
	$(BIN)/mkdocs serve

dist: $(VENV)/.stamp-dev  ## the wheel, into dist/
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python

constraints: $(VENV)/.stamp-core  ## choose the newest versions anew and write constraints.txt
	$(COMPILE) --upgrade --output-file constraints.txt

# An output file that exists is a list of preferred versions: they come out unchanged if they can still be
# had and still satisfy pyproject.toml.
check-constraints: $(VENV)/.stamp-core  ## constraints.txt still resolves and is in step with pyproject.toml
	@mkdir -p build && cp constraints.txt build/constraints.txt
	$(COMPILE) --output-file build/constraints.txt
	@diff -u constraints.txt build/constraints.txt || \
	  { echo "constraints.txt does not follow from pyproject.toml any more: run 'make constraints'"; exit 1; }

bench: $(VENV)/.stamp-dev  ## the speed benchmarks, side by side; figures go to benchmarks/RESULTS.md by hand
	for script in benchmarks/speed_*.py; do $(BIN)/python $$script || exit 1; done

clean:  ## remove what can be made again (keeps .venv)
	rm -rf build dist site demo-output .pytest_cache .mypy_cache .ruff_cache

# --- set-up -------------------------------------------------------------------------------------------------
# Some systems (Debian) ship Python without ensurepip: there pip, asked from outside, puts itself into the
# environment. pip 25.1 is the first that knows --group.
$(VENV)/.stamp-uv: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Swath needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Swath needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (the first time this fetches several GB, mostly PyTorch) ..."
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV); }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m pip --python $(BIN)/python install --quiet pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'pip>=25.1' uv
	@touch $@

$(VENV)/.stamp-core: $(VENV)/.stamp-uv pyproject.toml constraints.txt
	@$(call install,-e '.[all]')
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-core
	@$(call install,-e '.[$(EXTRAS)]' --group dev)
	@touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-core
	@$(call install,--group docs)
	@touch $@
