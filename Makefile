# `make` or `make help` explains itself. Needs Python 3.11 or newer, with venv.

PYTHON ?= python3
# Parallel test processes. Each starts servers of its own; tests wait more than they compute.
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cksum < requirements.lock | cut -d' ' -f1)
# What checks deploy/, in an environment of its own.
TOOLS := $(VENV)/deploy
TOOLS_READY := $(TOOLS)/.ready-$(shell cksum < deploy/checks.lock | cut -d' ' -f1)
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
# The oldest Kubernetes that the manifests are for, and the newest whose schemas are known.
KUBERNETES := 1.30 1.37
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-fast check deploy-check image-check format lock bench schemas docs crash-matrix clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-13s %s\n", $$1, $$2 }'

setup: $(READY) ## Install everything into .venv (the other targets do this by themselves)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bidden needs Python 3.11 or newer: run make PYTHON=/path/to/python3"; exit 2; }
	@echo "installing into $(VENV) (once; downloads about 200 MB)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --progress-bar off --quiet --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.ready-*
	@touch $@

demo: $(READY) ## Run a whole campaign on real servers, audit it, and serve the site to look at
	@$(BIN)/bidden demo

up: $(READY) ## Run Kafka, PostgreSQL, a mail sink, a dispatcher, a worker and the site, until Ctrl-C
	@$(BIN)/bidden up --workers 1 --site

test: $(READY) ## Run all tests, on real servers that they start themselves
	@$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-fast: $(READY) ## Run the fast half of the tests
	@$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow"

check: $(READY) ## Check lint, types, layers and generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m schemas.export --check
	@$(BIN)/python -m web.api.export --check
	@$(BIN)/python -m monitoring.rights --check

$(TOOLS_READY): deploy/checks.lock
	@command -v go >/dev/null || { echo "make deploy-check builds kustomize, and needs Go 1.24 or newer"; exit 2; }
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/pip install --progress-bar off --quiet --require-hashes -r deploy/checks.lock
	@GOBIN=$(CURDIR)/$(TOOLS)/bin go install $(KUSTOMIZE)
	@touch $@

deploy-check: $(TOOLS_READY) ## Check deploy/ by Kubernetes' and Grafana's schemas, Compose's library, systemd (needs Go)
	@cd tests/compose && go run . ../../docker-compose.yml > /dev/null && echo "docker-compose.yml: loads"
	@set -e; for overlay in deploy/kubernetes/overlays/*/; do \
		built=$(TOOLS)/$$(basename $$overlay).yaml; \
		$(TOOLS)/bin/kustomize build $$overlay > $$built; \
		for version in $(KUBERNETES); do $(TOOLS)/bin/kubernetes-validate --strict --quiet --no-warn -k $$version $$built; done; \
		echo "$$overlay: $$(grep -c ^kind: $$built) objects, as Kubernetes $(KUBERNETES) has them"; \
	done
	@$(TOOLS)/bin/python tests/verify_dashboard.py
	@tests/verify-units.sh

image-check: $(READY) ## Run the Dockerfile's steps in plain roots, and a campaign in the result (needs root and debootstrap)
	@$(BIN)/python -m tests.image

format: $(READY) ## Format the code and sort the imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schemas: $(READY) ## Write docs/schemas/*.json and docs/openapi.json from the models
	@$(BIN)/python -m schemas.export
	@$(BIN)/python -m web.api.export

docs: $(READY) ## Write the generated parts of docs/: schemas, states, the protocol's rules, the tests of each failure mode, metrics
	@$(BIN)/python -m schemas.export
	@$(BIN)/python -m web.api.export
	@$(BIN)/python -m monitoring.rights
	@$(BIN)/python -m tests.tables

lock: $(READY) ## Resolve pyproject.toml again into requirements.lock, and for the image into deploy/
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --extra dev --upgrade -o requirements.lock pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.13 --extra otel --constraint requirements.lock --upgrade \
		-o deploy/requirements.lock pyproject.toml deploy/requirements.in
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.13 --upgrade -o deploy/sbom.lock deploy/sbom.in
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --upgrade -o deploy/checks.lock deploy/checks.in

crash-matrix: $(READY) ## Kill a process at every crash point, and write docs/reference/crash-matrix.md
	@BIDDEN_TEST_WRITE_DOCS=1 $(BIN)/pytest tests/acceptance/test_crash_matrix.py

bench: $(READY) ## Measure the pipeline stage by stage and end to end
	@$(BIN)/python -m bench

clean: ## Remove what was installed and generated here (not .bidden, the data of the embedded servers)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
