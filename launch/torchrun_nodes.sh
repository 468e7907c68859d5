#!/usr/bin/env bash
# One poster on several machines that share the output folder; run the same line on every one of them.
# Call:     NODES=2 NODE_RANK=0 RENDEZVOUS=node0:29500 RANKS=8 launch/torchrun_nodes.sh "a red sun" --out /shared/sea.png
# Needs:    NODE_RANK 0, 1, ... on each; RENDEZVOUS is machine 0. Gloo: GLOO_SOCKET_IFNAME if names lead astray.
set -euo pipefail
exec imax launch --ranks "${RANKS:-8}" --nodes "${NODES:?how many machines}" \
  --node-rank "${NODE_RANK:?0 to NODES - 1}" --rendezvous "${RENDEZVOUS:?HOST:PORT of machine 0}" \
  ${ADDRESS:+--address "$ADDRESS"} generate "$@"
