.DEFAULT_GOAL := help
.PHONY: help up down status logs test test-real chaos drill-celery drill-compose drill-up soak soak-schedules fuzz lint bench lock clean
BIN := .venv/bin
INSTALLED := .venv/.installed

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

up: $(INSTALLED) ## Install, start everything, load; the second time in seconds
	@$(BIN)/kasparro up

down: ## Stop everything
	@if [ -x $(BIN)/kasparro ]; then $(BIN)/kasparro down; fi

status: $(INSTALLED) ## Show what runs
	@$(BIN)/kasparro status

logs: $(INSTALLED) ## Follow the logs of all services
	@$(BIN)/kasparro logs --follow

test: $(INSTALLED) ## Run the whole test suite
	@$(BIN)/pytest -n 3 --dist loadscope

test-real: $(INSTALLED) ## Run the tests on recorded vendor answers in KASPARRO_REALDATA
	@$(BIN)/pytest -m realdata

chaos: $(INSTALLED) ## Kill loads and the database KILLS times (500), and compare with undisturbed loads
	@$(BIN)/python -m kasparro_tests.chaos --kills $(or $(KILLS),500) --seed $(or $(SEED),1)

drill-celery: $(INSTALLED) ## Spread 60 days over two Celery workers and lose one; needs root, redis-server, kasparro[celery]
	@$(BIN)/python -m kasparro_tests.chaos.workers

soak-schedules: $(INSTALLED) ## Live through DAYS (7) of schedules in half an hour, watch what grows and what is missed; needs kasparro[soak]
	@$(BIN)/python -m kasparro_tests.chaos.schedules --days $(or $(DAYS),7)

soak: $(INSTALLED) ## Ask the API for DURATION (600) seconds while loads run and the database is killed once; needs wrk
	@$(BIN)/python -m kasparro_tests.chaos.soak --seconds $(or $(DURATION),600)

drill-compose: $(INSTALLED) ## Bring the containers up, kill each of them, and compare with undisturbed loads; needs Docker
	@$(BIN)/python -m kasparro_tests.chaos.containers

drill-up: $(INSTALLED) ## Bring everything up, kill each process, and compare with undisturbed loads
	@$(BIN)/python -m kasparro_tests.chaos.processes

fuzz: $(INSTALLED) ## Ask the API thousands of made-up requests: EXAMPLES (300) an operation
	@KASPARRO_FUZZ=$(or $(EXAMPLES),300) $(BIN)/pytest -s kasparro_tests/api/test_fuzz.py

lint: $(INSTALLED) ## Check style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile && $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/*/docker-compose.yml
	@$(BIN)/kubernetes-validate --quiet --strict -k 1.37 deploy/k8s/kasparro.yaml deploy/k8s/secrets.example.yaml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml

bench: $(INSTALLED) ## Measure loading, serving and identity
	@$(BIN)/python -m kasparro_tests.bench

lock: ## Pin the newest versions that fit, in constraints.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile setup.py --extra dev --extra embedded --extra bench --extra soak --extra otel --extra celery --extra docker --extra k8s --universal --python-version 3.11 \
		--no-annotate --no-emit-index-url --upgrade --quiet -o constraints.txt

clean: down ## Stop everything and remove the environment and caches; data stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info

$(INSTALLED): setup.py constraints.txt
	@scripts/bootstrap
