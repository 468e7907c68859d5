#!/usr/bin/env bash
# One poster on this machine: one process, on its first GPU or on the CPU.
# Call:     launch/local.sh "a red sun over the sea" --size 4096x4096 --out sea.png
# Options:  those of `imax generate`; the same call again goes on from the last checkpoint.
set -euo pipefail
exec imax generate "$@"
