#!/usr/bin/env bash
# A batch handed to a Ray cluster from outside; returns at once, the cluster's head runs it.
# Call:     RAY_ADDRESS=http://head:8265 launch/ray_job_submit.sh /shared/night.jsonl --out /shared/night
# Needs:    RAY_AUTH_TOKEN of the cluster; imax_dist installed there; paths as the cluster sees them.
set -euo pipefail
exec ray job submit --address "${RAY_ADDRESS:?http://HEAD:8265}" --entrypoint-num-cpus 0 --no-wait \
  -- python -m imax_dist batch "$@" --ray auto
