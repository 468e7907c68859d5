#!/usr/bin/env bash
# A batch on the Ray cluster this machine belongs to (or that RAY_ADDRESS names).
# Call:     launch/ray.sh night.jsonl --out /shared/night --pool eight-gpus --gangs 4
# Options:  those of `imax batch`; the same call again renders only what is missing.
set -euo pipefail
exec imax batch "$@" --ray auto
