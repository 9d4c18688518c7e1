# Two commands do everything: `make up` starts a hive here, `make test` tests it.
# Everything is installed under this directory: .venv, .claude-cli, .hive.

PYTHON ?= python3
HIVE_ROOT ?= .hive
SERVE_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOCKS := .ci/locks
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
CLAUDE := .claude-cli/claude
CODEX := .codex-cli/codex
JS_STAMP := tests/js/node_modules/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.PHONY: up test bench claude codex js screenshots lint lock clean help

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

up: $(RUN_STAMP) ## install what is missing, start the hive under ./.hive, print the login URL
	@exec $(BIN)/hive-c0re --root $(HIVE_ROOT) serve $(SERVE_FLAGS)

test: $(DEV_STAMP) ## the whole test suite; what this machine cannot run is skipped with a reason
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

claude: $(CLAUDE) ## optional: install the Claude Code CLI from npm under this directory

codex: $(CODEX) ## optional: install the Codex CLI from npm under this directory, for its tests

js: $(JS_STAMP) ## optional: install what checks the pages' JavaScript from npm; `make test` then does

bench: $(BENCH_STAMP) ## every benchmark, one table with goals; then the broker beside Redis, NATS and others
	@$(BIN)/python tests/benchmarks/run.py $(BENCH_FLAGS)
	@$(BIN)/python tests/benchmarks/bench_peers.py $(PEER_FLAGS)

screenshots: $(DEV_STAMP) ## every page and state, desktop and phone, into build/screenshots (needs chromium)
	@$(BIN)/python -m tests.browser.screenshots $(SCREENSHOT_FLAGS)

lint: $(DEV_STAMP) ## ruff and strict types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(BIN)/python:
	@echo "1/3 creating the environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hyperhive needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=… to another one." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "creating the environment failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(RUN_STAMP): $(LOCKS)/run.txt pyproject.toml | $(BIN)/python
	@echo "2/3 installing $$(grep -c '==' $(LOCKS)/run.txt) locked packages, hashes checked (half a minute the first time)"
	@$(PIP) install --require-hashes --only-binary :all: -r $(LOCKS)/run.txt
	@echo "3/3 installing hyperhive itself"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): $(LOCKS)/dev.txt $(RUN_STAMP)
	@echo "installing the tools for tests"
	@$(PIP) install --require-hashes --only-binary :all: -r $(LOCKS)/dev.txt
	@touch $@

$(BENCH_STAMP): $(LOCKS)/bench.txt $(DEV_STAMP)
	@echo "installing the clients of the queues to compare with"
	@$(PIP) install --require-hashes --only-binary :all: -r $(LOCKS)/bench.txt
	@touch $@

$(CLAUDE): $(LOCKS)/claude/package-lock.json
	@command -v npm >/dev/null || { echo "the Claude Code CLI comes from npm: install nodejs and npm first" >&2; exit 1; }
	@mkdir -p .claude-cli && cp $(LOCKS)/claude/package.json $(LOCKS)/claude/package-lock.json .claude-cli/
	@echo "installing the Claude Code CLI from npm (about 235 MB)"
	@cd .claude-cli && npm ci --silent --ignore-scripts --no-audit --no-fund
	@cd .claude-cli && ln -sf $$(ls -d node_modules/@anthropic-ai/claude-code-*/claude | head -1) claude
	@touch $(CLAUDE) && $(CLAUDE) --version

$(CODEX): $(LOCKS)/codex/package-lock.json
	@command -v npm >/dev/null || { echo "the Codex CLI comes from npm: install nodejs and npm first" >&2; exit 1; }
	@mkdir -p .codex-cli && cp $(LOCKS)/codex/package.json $(LOCKS)/codex/package-lock.json .codex-cli/
	@echo "installing the Codex CLI from npm (about 400 MB)"
	@cd .codex-cli && npm ci --silent --ignore-scripts --no-audit --no-fund
	@cd .codex-cli && ln -sf $$(ls -d node_modules/@openai/codex-*/vendor/*/bin/codex | head -1) codex
	@touch $(CODEX) && $(CODEX) --version

$(JS_STAMP): tests/js/package.json tests/js/package-lock.json
	@command -v npm >/dev/null || { echo "the checks of the pages come from npm: install nodejs and npm first" >&2; exit 1; }
	@echo "installing TypeScript, axe-core and linkedom from npm (about 40 MB)"
	@cd tests/js && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

lock: $(DEV_STAMP) ## renew the lock files (needs the package indexes; review the difference)
	@$(PIP) install pip-tools
	@cd $(LOCKS) && for set in run dev; do \
	  ../../$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
	    $$(test $$set = dev && echo --extra dev) --output-file $$set.txt ../../pyproject.toml build.in; done; \
	  ../../$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
	    --output-file bench.txt bench.in
	@for set in $(LOCKS)/claude $(LOCKS)/codex tests/js; do \
	  (cd $$set && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved) || exit 1; done
	@$(BIN)/python nix/python/update.py

clean: ## remove what make installed; the hive's state in .hive stays
	@rm -rf $(VENV) .claude-cli .codex-cli tests/js/node_modules
