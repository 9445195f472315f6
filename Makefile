.PHONY: check test format env

check: env  ## what a commit must pass: formatting, lint, tests
	.venv/bin/python -m ruff format --check .
	scripts/test.sh

test:  ## the tests
	scripts/test.sh

format: env  ## rewrite files in the house format
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

env:  ## make or refresh .venv
	scripts/env.sh
