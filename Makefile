# The few commands anyone needs. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help course test notebooks pytest lab package outputs export readme kaggle weights mutations reference torture site

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# compile no module at installation, and keep what the first import compiles
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# make course NOTEBOOKS="01 02" runs only these
NOTEBOOKS ?=
# make reference SEEDS=3 HOURS=5 makes the run with seed 3, if that takes five hours at most
SEEDS ?= 0 1 2 3 4
HOURS ?= 3

# make lab IN=nbs opens the course itself, for who changes it
IN ?= mine

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): settings.ini setup.py constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"the course needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: try make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

course: $(READY)  ## run the numbered notebooks in order and show what came out (NOTEBOOKS="01 02" picks some)
	$(BIN)/python tools/course.py run $(NOTEBOOKS)

test: $(READY)  ## check derived files, style, each notebook alone in an empty folder, tests/
	$(MAKE) notebooks
	$(MAKE) pytest

notebooks: $(READY)
	$(BIN)/python tools/derive.py check
	$(BIN)/ruff check nbs tools tests benchmarks
	$(BIN)/python tools/course.py test

pytest: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -rfEs tests

site: $(READY)  ## build the course's site in _site/, without a network
	$(BIN)/python tools/website.py

lab: $(READY)  ## open the course in JupyterLab, in your own copy mine/ (IN=nbs: the course itself)
	@[ -d $(IN) ] || cp -r nbs $(IN)
	$(BIN)/jupyter lab --notebook-dir=$(IN)

package: $(READY)  ## build wheel and sdist, and use each in a fresh environment
	$(BIN)/python tools/package.py

outputs: $(READY)  ## for authors: run the notebooks and store their outputs in nbs/ (NOTEBOOKS picks some)
	$(BIN)/python tools/course.py store $(NOTEBOOKS)

export: $(READY)  ## for authors: derive the library from the notebooks
	$(BIN)/python tools/derive.py export

readme: $(READY)  ## for authors: derive README.md from nbs/index.ipynb
	$(BIN)/python tools/derive.py readme

kaggle: $(READY)  ## for authors: assemble kaggle/minigpt.ipynb from its story and the library
	$(BIN)/python tools/derive.py kaggle

weights: $(READY)  ## for authors: publish the laptop model of the last `make outputs` with the library
	$(BIN)/python tools/weights.py

mutations: $(READY)  ## for authors: let the exercises' checkers judge the wrong answers and keep what they say
	$(BIN)/python tests/mutations.py

reference: $(READY)  ## for authors: train the full model to its end and keep the curve (SEEDS="0 1" picks some)
	$(BIN)/python tools/reference.py --seeds $(SEEDS) --hours $(HOURS)

torture: $(READY)  ## for authors, an hour: kill, crowd and starve runs in many ways, and see that nothing is lost
	$(BIN)/python tests/torture.py
