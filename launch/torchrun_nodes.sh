#!/usr/bin/env bash
# One poster on several machines that share the output folder; run the same line on every one of them.
# Call:     NODES=2 RENDEZVOUS=node0:29500 RANKS=8 launch/torchrun_nodes.sh "a red sun" --out /shared/sea.png
# Needs:    RENDEZVOUS is one of the machines, seen by all; RUN_ID tells two posters apart (imax if not set).
set -euo pipefail
exec torchrun --nnodes "${NODES:?how many machines}" --nproc-per-node "${RANKS:-8}" \
  --rdzv-backend c10d --rdzv-id "${RUN_ID:-imax}" --rdzv-endpoint "${RENDEZVOUS:?HOST:PORT of one machine}" \
  --shutdown-timeout 150 -m imax_dist generate "$@"
