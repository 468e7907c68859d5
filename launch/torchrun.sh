#!/usr/bin/env bash
# One poster on several GPUs of this machine, torchrun's way: one rank each, RANKS of them (2 if not set).
# Call:     RANKS=8 launch/torchrun.sh "a red sun over the sea" --size 16384x16384 --out sea.png
# Options:  those of `imax generate`. A lost rank starts all again from the checkpoint; exit codes arrive.
set -euo pipefail
exec imax launch --ranks "${RANKS:-2}" generate "$@"
