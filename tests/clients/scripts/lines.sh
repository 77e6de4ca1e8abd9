#!/bin/bash
#SBATCH -J lines
#SBATCH --array=1-4%2
#SBATCH -t 00:05:00
#SBATCH --mem=50M
#SBATCH -o lines_%A_%a.out
PARAMS=$(sed -n "${SLURM_ARRAY_TASK_ID}p" params.txt)
read -r name value <<< "$PARAMS"
LINE=$(awk -v id=$SLURM_ARRAY_TASK_ID 'NR == id { print $2 }' params.txt)
echo "task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT ($SLURM_ARRAY_TASK_MIN-$SLURM_ARRAY_TASK_MAX): $name=$value $LINE"
[ -f lines_${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}.out ] && echo "its file is there"
[ "$value" != bad ] || exit 9
