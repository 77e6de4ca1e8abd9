#!/bin/bash
#SBATCH -n 1 -t 5 --mem 50
#SBATCH -o tmpdir.out
# Works in a folder of its own on the node and brings the results back.
set -e
WORK=${SLURM_TMPDIR:-/tmp/$USER.$SLURM_JOB_ID}
mkdir -p "$WORK"
cleanup() {
    cp "$WORK"/result.txt "$SLURM_SUBMIT_DIR"/
    rm -rf "$WORK"
    echo "cleaned up after status $?"
}
trap cleanup EXIT
cp "$SLURM_SUBMIT_DIR"/input.txt "$WORK"
cd "$WORK"
srun sort -r input.txt > result.txt
echo "TMPDIR ${TMPDIR:-unset} user ok $([ "$USER" = "$SLURM_JOB_USER" ] && echo yes) uid ok $([ "$(id -u)" = "$SLURM_JOB_UID" ] && echo yes)"
