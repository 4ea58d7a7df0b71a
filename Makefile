# Each command is one line over hub/bootstrap.py, which is the way where make is missing.
# ARGS are passed on: make test ARGS="tests/unit -k phones"
PYTHON ?= python3
BOOTSTRAP = $(PYTHON) -I hub/bootstrap.py

.PHONY: run test faults mutants install lint migrate
run: ; @exec $(BOOTSTRAP) run $(ARGS)
test: ; @exec $(BOOTSTRAP) test $(ARGS)
faults: ; @exec $(BOOTSTRAP) faults $(ARGS)
mutants: ; @exec $(BOOTSTRAP) mutants $(ARGS)
install: ; @exec $(BOOTSTRAP) install $(ARGS)
lint: ; @exec $(BOOTSTRAP) lint $(ARGS)
migrate: ; @exec $(BOOTSTRAP) migrate $(ARGS)
