#!/usr/bin/env bash
# One poster on several GPUs of this machine: one rank each, RANKS of them (2 if not set).
# Call:     RANKS=8 launch/torchrun.sh "a red sun over the sea" --size 16384x16384 --out sea.png
# Options:  those of `imax generate`. torchrun exits 1 for every failure; the message says which one.
set -euo pipefail
exec torchrun --standalone --nproc-per-node "${RANKS:-2}" --shutdown-timeout 150 \
  -m imax_dist generate "$@"
