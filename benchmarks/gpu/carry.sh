#!/bin/sh
# Runs the GPU benchmark on a machine that has torch and transformers and reaches no registry: what is missing comes
# from the wheels that `make gpu-wheels` has fetched, into a folder of its own, which is removed at the end.
#
# usage: benchmarks/gpu/carry.sh [arguments of python -m benchmarks.gpu]
# PYTHON: the interpreter that has torch. WHEELS: where the wheels are.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" "${WHEELS:-.gpu-wheels}"/*.whl
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" -m benchmarks.gpu "$@"
