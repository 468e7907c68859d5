#!/usr/bin/env bash
# One poster on the machines SLURM gives: 2 with 8 GPUs each (for others: sbatch --nodes=4 ..., RANKS=4).
# Call:     sbatch launch/slurm.sh "a red sun over the sea" --size 32768x32768 --out /shared/sea.png
# Stopping: SIGTERM comes 180 s before the time limit; 75 means: submit it again to resume.
#SBATCH --job-name=imax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
exec srun --kill-on-bad-exit=1 imax launch --nodes "$SLURM_JOB_NUM_NODES" --ranks "${RANKS:-8}" \
  --rendezvous "$first:${PORT:-29500}" generate "$@"
