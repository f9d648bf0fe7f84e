# Everything that a fresh machine with python3, make and a package index needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

# Tests start processes by the dozen: without bytecode each would compile torch and transformers anew, which takes longer than the tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check docs clean

demo: .venv/installed
	$(BIN)/vtpbench run suites/demo.yaml
	$(BIN)/vtpbench report suites/demo.yaml

test: .venv/dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/docs
	$(BIN)/mkdocs build --quiet

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

.venv/installed: .venv/bin/uv pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/dev: .venv/bin/uv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps llava-torch==1.2.2.post1  # the original LLaVA, an oracle of the tests; its own pins are years old
	touch $@ .venv/installed

.venv/docs: .venv/bin/uv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[docs]'
	touch $@ .venv/installed

clean:
	rm -rf .venv build dist site
