#!/bin/bash
#SBATCH --job-name=old_style
#SBATCH -o %x-%j.out                # with a word behind it
#SBATCH --error=%x-%j.err
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --mem-per-cpu=50M
#SBATCH   --time   00:05:00
#SBATCH --mail-type=NONE
#SBATCH --export=ALL
##SBATCH --partition=not_this_one
# SBATCH --partition=nor_this_one
#SBATCH --wckey=project --no-kill
#SBATCH --distribution=block:block
#SBATCH --propagate=STACK
#SBATCH --get-user-env

# What a script of a cluster with modules does first.
type module >/dev/null 2>&1 || module() { :; }
module purge
module load gcc/12 openmpi/4
set -euo pipefail

#SBATCH --this-line=is-not-read
echo "name $SLURM_JOB_NAME partition $SLURM_JOB_PARTITION"
echo "nodes $SLURM_JOB_NUM_NODES $SLURM_NNODES tasks $SLURM_NTASKS $SLURM_NPROCS"
echo "per node $SLURM_NTASKS_PER_NODE $SLURM_TASKS_PER_NODE cpus $SLURM_CPUS_ON_NODE $SLURM_JOB_CPUS_PER_NODE"
echo "memory $SLURM_MEM_PER_CPU distribution $SLURM_DISTRIBUTION"
echo "from $(basename "$SLURM_SUBMIT_DIR") in $(basename "$PWD") same id $((SLURM_JOBID == SLURM_JOB_ID))"
cd "$SLURM_SUBMIT_DIR"
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
srun bash -c 'echo "task $SLURM_PROCID of $SLURM_NTASKS, threads $OMP_NUM_THREADS"' | sort
echo "said on standard error" >&2
