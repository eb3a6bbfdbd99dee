# The commands of this repository; `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run up down clean demo test properties lint sbom format types check migrate docs bench bench-estimate bench-growth bench-identity bench-ingest bench-revocation chaos chaos-smoke \
	venv venv-dev

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: venv ## Start everything, bill a demo group, show the table; Ctrl-C ends it
	@exec $(BIN)/python -m eb_tools.stack run

up: venv ## The same in the background
	@$(BIN)/python -m eb_tools.stack up

down: ## End what runs in the background
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m eb_tools.stack down; else echo "nothing runs"; fi

clean: ## End it and forget its data
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m eb_tools.stack clean; else rm -rf .run; fi

demo: venv ## Tell the story request by request against the running stack (started if there is none)
	@$(BIN)/python -m eb_tools.demo

migrate: venv ## Bring the database of DATABASE_URL (its owner's) to the newest revision
	@$(BIN)/python -m eb_tools.migrate upgrade head

test: venv-dev ## All tests on a stack of their own, beside a running one
	@$(BIN)/python -m eb_tools.suite $(ARGS)

lint: venv-dev ## Style, types, import rules, SQL, manifests, drift of generated files, advisories
	@$(BIN)/python -m eb_tools.lint

sbom: venv-dev ## Write sbom.json: every pinned package, as CycloneDX
	@$(BIN)/python -m eb_tools.sbom

format: venv-dev ## Format the code
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format .

types: venv-dev ## Types only
	@$(BIN)/python -m eb_tools.lint types

properties: venv-dev ## What holds for any input, with 10,000 examples each (EB_LONG=1)
	@EB_LONG=1 $(BIN)/python -m pytest -q -n auto --dist load -m hypothesis -o timeout=0 libs services $(ARGS)

check: lint test ## What has to pass before a change is kept

docs: venv-dev ## Generate the API documents and schemas again
	@$(BIN)/python -m eb_tools.lint --write docs

bench: venv-dev ## All benchmarks, about half an hour
	@for part in rating writer pricing ledger hierarchy; do $(BIN)/python bench/$$part.py || true; done
	@$(BIN)/python -m eb_tools.beside bench/series.py all
	@$(BIN)/python -m eb_tools.beside bench/estimate.py
	@$(BIN)/python -m eb_tools.beside bench/identity.py
	@$(BIN)/python -m eb_tools.beside bench/revocation.py
	@$(BIN)/python bench/report.py

bench-growth: venv-dev ## Cost of an event against sizes of batches, organisations, SKUs and minutes
	@$(BIN)/python -m eb_tools.beside bench/series.py growth

bench-estimate: venv-dev ## Estimates of 20 SKUs, computed and from the cache
	@$(BIN)/python -m eb_tools.beside bench/estimate.py $(ARGS)

bench-identity: venv-dev ## Token and key checks a second, sign-ins, what auditing costs
	@$(BIN)/python -m eb_tools.beside bench/identity.py $(ARGS)
	@$(BIN)/python bench/audit.py

bench-revocation: venv-dev ## How soon each kind of revoked credential is refused in every service (about eight minutes)
	@$(BIN)/python -m eb_tools.beside bench/revocation.py $(ARGS)

bench-ingest: venv-dev ## Events end to end, with the ceilings of the same run
	@$(BIN)/python -m eb_tools.beside bench/ingest.py $(ARGS)

chaos: venv-dev ## Every fault, the long form (about 25 min); EB_CHAOS_RECORD=docs/chaos.md keeps the table
	@$(BIN)/python -m eb_tools.suite tests/chaos -n0 -s --ignore=tests/chaos/test_smoke.py --ignore=tests/chaos/test_outage.py $(ARGS)

chaos-smoke: venv-dev ## kill -9 of each process while 50,000 events flow
	@$(BIN)/python -m eb_tools.suite tests/chaos/test_smoke.py $(ARGS)

venv:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed and $(PYTHON) isn't on the PATH." >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py run

venv-dev:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed and $(PYTHON) isn't on the PATH." >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py dev
