#!/usr/bin/env bash
# One poster on this machine: one process, on its first GPU or on the CPU.
# Call:     launch/local.sh "a red sun over the sea" --size 4096x4096 --out sea.png
# Options:  those of `imax generate`; run it again to resume.
set -euo pipefail
exec imax generate "$@"
