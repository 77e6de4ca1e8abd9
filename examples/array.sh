#!/bin/bash
# Shows: a job array, many like jobs from one submit, at most two at a time (%2). Expect: files
# array-<job id>_0.out to _9.out with the squares of 0 to 9. `squeue` shows what waits as one line.
#   sbatch array.sh
#SBATCH --job-name=array
#SBATCH --array=0-9%2
#SBATCH --time=1
#SBATCH --output=array-%A_%a.out

echo "task $SLURM_ARRAY_TASK_ID of job $SLURM_ARRAY_JOB_ID"
echo "square: $((SLURM_ARRAY_TASK_ID * SLURM_ARRAY_TASK_ID))"
sleep 1
