# Set-up, tests, demo and benchmarks. Nothing here needs root; what is installed goes to .venv.
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DURATION ?=
PORT ?= 3000
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test check format lock bench-chain bench-commits bench-windows bench-join bench-machine bench-snmp bench-mqtt soak bench-skab bench-ml clean

$(STAMP): requirements.lock pyproject.toml
ifdef UV
	@test -x $(PYTHON) || uv venv --quiet --python ">=3.11" $(VENV)
	uv pip install --quiet --python $(PYTHON) --require-hashes -r requirements.lock
	uv pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation -e .
else
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $(STAMP)

demo: $(STAMP)  ## The main job on simulated plants; DURATION=60 runs it bounded and audits it, PORT=3001 moves the UI
	@$(PYTHON) -W ignore -m pipelines.demo --port $(PORT) $(if $(DURATION),--duration $(DURATION))

test: $(STAMP)  ## The tests
	@$(PYTHON) -m pytest

check: $(STAMP)  ## Format, lint, types, tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTHON) -m pytest

format: $(STAMP)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

lock:  ## Renews requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --extra dev --extra postgresql --extra mysql --universal -p 3.11 \
		pyproject.toml -o requirements.lock

bench-chain: $(STAMP)  ## 1.4 million readings from landing to gold, beside DuckDB
	@$(PYTHON) -m benchmarks.chain

bench-commits: $(STAMP)  ## 1,000 micro-batches on 10 million rows
	@$(PYTHON) -m benchmarks.commits

bench-machine: $(STAMP)  ## 1.4 million machine states from a sender to silver; MESSAGES=100000 for fewer
	@$(PYTHON) -m benchmarks.machine $(if $(MESSAGES),--messages $(MESSAGES))

bench-snmp: $(STAMP)  ## SNMP polls beside snmpbulkwalk and pysnmp, and of 3,000 targets
	@$(PYTHON) -m benchmarks.snmp

bench-mqtt: $(STAMP)  ## The MQTT collector beside mosquitto_sub; MESSAGES=100000 for a short one, ROUNDS=3 for the best of three
	@$(PYTHON) -m benchmarks.mqtt $(if $(MESSAGES),--messages $(MESSAGES)) $(if $(ROUNDS),--rounds $(ROUNDS))

soak: $(STAMP)  ## 10 minutes of kills, restarts and cuts at 5,000 readings a second; DURATION=60 for a short one
	@$(PYTHON) -W ignore -m benchmarks.soak $(if $(DURATION),--duration $(DURATION))

bench-windows: $(STAMP)  ## Windows beside DuckDB, in micro-batches, on 10 million rows; ROWS=, BATCH=, HISTORY= for others
	@$(PYTHON) -m benchmarks.windows $(if $(ROWS),--rows $(ROWS)) $(if $(BATCH),--batch $(BATCH)) $(if $(HISTORY),--history $(HISTORY))

bench-join: $(STAMP)  ## gold.machine_power of 1.4 million readings, beside two DuckDB ASOF joins
	@$(PYTHON) -m benchmarks.joins

bench-skab: $(STAMP)  ## The anomaly model on labelled industrial data; DATA=folder
	@$(PYTHON) -m benchmarks.skab $(DATA)

bench-ml: $(STAMP)  ## Windows scored a second, training on 1 million of them, explanations, the simulator's faults; WINDOWS=200000 for fewer
	@$(PYTHON) -m benchmarks.ml $(if $(WINDOWS),--windows $(WINDOWS))

clean:
	rm -rf $(VENV) build *.egg-info
