#!/bin/bash
# Shows: the smallest job. Expect: in slurm-<job id>.out a greeting from the node, and the job
# COMPLETED with exit code 0:0 after two seconds.
#   sbatch hello.sh
#SBATCH --job-name=hello
#SBATCH --time=1
#SBATCH --ntasks=1

echo "Hello from job $SLURM_JOB_ID on $SLURMD_NODENAME, started by $(id -un)"
echo "CPUs here: $SLURM_CPUS_ON_NODE; submitted in $SLURM_SUBMIT_DIR"
sleep 2
echo "Done."
