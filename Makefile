# make play   plays the scenarios           make test   format, lint, types, tests: all that CI runs
# make deps   Debian packages for the link faults (asks for root)
# make bench  prints the figures            make fix    lets ruff mend format and lint
# make site   makes the documentation as a site: open site/index.html
PYTHON ?= python3
BIN = .venv/bin

.PHONY: play test check deps bench fix versions schema pictures site clean
.DEFAULT_GOAL := play

play: .venv/.play
	@$(BIN)/socklab play

test: .venv/.dev check
	$(BIN)/pytest --ignore tests/docs
	$(BIN)/pytest -n 2 tests/docs # programs that wait for one another: two pages at once
	$(BIN)/python tests/play_versions.py

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

versions: .venv/.play
	$(BIN)/python tests/play_versions.py

pictures: .venv/.dev
	$(BIN)/python -m docs.pictures

site: .venv/.docs
	@$(BIN)/python -m docs.website

bench: .venv/.dev
	$(BIN)/python -m bench

schema: .venv/.play
	$(BIN)/socklab schema > scenario.schema.json

deps:
	@if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends iproute2 nftables python3-venv

# The environment is made once, and again when pyproject.toml changes.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "socklab needs Python 3.11 or later; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "no virtual environment: install python3-venv (make deps does)" >&2; exit 2; }

.venv/.play: .venv/bin/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.dev: .venv/.docs pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev --editable '.[all]'
	@touch $@

# pip before 25.1 knows no dependency groups.
.venv/.docs: .venv/.play pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	@touch $@

clean:
	rm -rf .venv .venv-* runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis
