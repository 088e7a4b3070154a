# Every target does its own set-up: the virtual environment, a Docker engine, the images. Run `make help` to see them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON_BIN := .venv/bin
export TESTCONTAINERS_RYUK_DISABLED := true
ROUNDS ?= 1000

.PHONY: help setup venv engine images runner-images fault-tools test-tools demo test test-long test-warm test-tailnet test-kubernetes test-engines campaign check bench bench-peers release-check deb lock screenshots clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: venv engine images ## Python environment, Docker engine, runner images (first time about 5 minutes, then 2 s)

venv:
	@.ci/venv

engine:
	@.ci/engine

images: venv engine
	@.ci/images --agent

runner-images: venv engine
	@.ci/images

fault-tools:
	@.ci/fault-tools

test-tools:
	@.ci/test-tools

test-tailnet: venv ## Run the suite that needs a real tailnet (as root)
	@.ci/tailnet $(PYTHON_BIN)/pytest -m tailnet tests/tailnet $(PYTEST_ARGS)

test-kubernetes: images ## Run the suite that installs the Helm chart on a real cluster, and in a real tailnet (as root)
	@.ci/tailnet .ci/kubernetes $(PYTHON_BIN)/pytest -m kubernetes tests/cluster $(PYTEST_ARGS)

demo: runner-images ## See the main job: real playbooks in locked containers, results at a dashboard (30 s after set-up)
	@echo "demo: five playbooks through the whole path (about 15 s)."
	@PYTHONPATH=tests $(PYTHON_BIN)/python -m demo

test: setup fault-tools test-tools ## Run every test (about 25 minutes on two cores)
	@echo "test: every suite, on real engines (about 25 minutes on two cores)."
	@.ci/tests $(PYTEST_ARGS)

test-long: setup fault-tools test-tools ## Run the faults at their full length and number (about 40 minutes)
	$(PYTHON_BIN)/pytest -m campaign $(PYTEST_ARGS)

test-warm: setup fault-tools test-tools ## Run the suites of faults and isolation with warm containers (about 20 minutes)
	AGP_TEST_WARM=1 $(PYTHON_BIN)/pytest tests/fault -n 4 --dist worksteal $(PYTEST_ARGS)
	AGP_TEST_WARM=1 $(PYTHON_BIN)/pytest tests/isolation $(PYTEST_ARGS)

test-engines: setup test-tools ## Run the suites that need an engine against Docker of Debian bookworm, trixie and sid; try rootless and Podman (about 35 minutes, as root)
	@.ci/engines
	@PYTHONPATH=tests $(PYTHON_BIN)/python -m engines $(ENGINES)

campaign: runner-images fault-tools ## Kill the agent again and again while tasks flow (ROUNDS=1000: about 80 minutes; SEED= repeats one)
	@PYTHONPATH=tests $(PYTHON_BIN)/python -m campaign --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(CAMPAIGN_ARGS)

check: venv ## Lint, types, floor plan, dependencies
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/mypy
	$(PYTHON_BIN)/lint-imports
	$(PYTHON_BIN)/deptry src
	$(PYTHON_BIN)/shellcheck -x .ci/run .ci/tests .ci/venv .ci/engine .ci/images .ci/fault-tools .ci/test-tools .ci/tailnet .ci/kubernetes .ci/bench-peers .ci/engines .ci/wheel .ci/deb docs/docker-host/debian/postinst docs/docker-host/debian/prerm docs/docker-host/debian/postrm images/entry/agp-entry images/entry/agp-accounts images/entry/agp-install-warm images/shell/agp-shell images/fence/agp-fence images/fence/agp-probe images/fence/agp-listen images/ansible/agp-no-root images/ansible/agp-try-warm src/agp_agent/runner_check/probe.sh tests/support/ssh_host/start tests/support/tailscale/start-as-containerboot
	$(PYTHON_BIN)/hadolint Dockerfile images/*/Dockerfile docs/examples/*/Dockerfile tests/support/*/Dockerfile

bench: runner-images ## Measure, side by side with the alternatives; writes docs/performance.md (about 11 minutes)
	PYTHONPATH=tests $(PYTHON_BIN)/python -m bench --store $(BENCH_ARGS)

bench-peers: ## Install the rivals of PyPI that `make bench` runs beside the agent, in .venv-peers (about 5 minutes)
	@.ci/bench-peers

release-check: setup ## Build wheel and images twice and compare, list their parts, install and try them (about 6 minutes)
	@.ci/images --agent --of-head
	@PYTHONPATH=tests $(PYTHON_BIN)/python -m release

deb: venv ## Build a Debian package for the release that this machine runs: dist/agp-agent_….deb (about a minute)
	@.ci/deb

screenshots: setup test-tools ## Take the README's pictures anew, by the browser tests (about a minute)
	AGP_SCREENSHOTS=docs/images $(PYTHON_BIN)/pytest -q tests/browser -k "ansibles or newcomer" $(PYTEST_ARGS)

lock: ## Pin all dependencies anew, with hashes (needs uv)
	uv pip compile pyproject.toml --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -q -o requirements.lock
	uv pip compile pyproject.toml --extra otel --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -q -o requirements-otel.lock
	uv pip compile tests/bench/requirements-peers.in --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -q -o tests/bench/requirements-peers.lock
	uv pip compile pyproject.toml --group dev --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -q -o requirements-dev.lock

clean: ## Remove what the targets made in this folder (images and the engine stay)
	rm -rf .venv .venv-peers build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
