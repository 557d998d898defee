# The README's commands. They need Python >= 3.11, make and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN ?= train pets cartpole_swingup --seed 0

.PHONY: train test check format lint types docs slow lock clean

train: $(VENV)/.installed  ## PETS on the cart-pole swing-up, 12 episodes
	$(BIN)/jaxmbrl $(TRAIN)

test: $(VENV)/.developing  ## the tests that CI runs
	$(BIN)/pytest -n 2

slow: $(VENV)/.developing  ## the tests that take minutes each
	$(BIN)/pytest -n 2 -m slow

check: lint types docs test  ## exactly what CI runs

format: $(VENV)/.developing
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(VENV)/.developing
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/.developing
	$(BIN)/basedpyright

docs: $(VENV)/.developing  ## the documentation site, in .cache/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml

lock: $(VENV)/.developing  ## pin versions anew (names, versions, hashes)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --upgrade pyproject.toml requirements/build.in -o requirements/run.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --upgrade --extra dev -c requirements/run.lock pyproject.toml requirements/build.in -o requirements/dev.lock

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements/run.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.developing: requirements/dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	touch $@
