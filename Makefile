# Short names for what manage.py and the tools in .venv do; `python3 manage.py test` makes .venv.
PYTHON = python3
.DEFAULT_GOAL := help
.PHONY: help up test lint chaos bench check

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

up: ## run everything: database, API, console, worker, session, simulated exchange
	$(PYTHON) manage.py up

test: ## run the tests; ARGS="orders -k requeue" runs a part of them
	$(PYTHON) manage.py test $(ARGS)

lint: ## check style and types
	.venv/bin/ruff check . .ci/mutants .ci/docker_smoke
	.venv/bin/ruff format --check . .ci/mutants .ci/docker_smoke
	.venv/bin/mypy

chaos: ## three minutes of faults; ARGS="--minutes 15 --seed 2" changes that
	$(PYTHON) manage.py chaos $(or $(ARGS),--minutes 3)

bench: ## measure; ARGS="--help" lists what can be chosen
	$(PYTHON) benchmarks/run.py $(ARGS)

check: ## all that CI checks, in up to 40 minutes
	bash .ci/run
