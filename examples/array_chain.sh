#!/bin/bash
# Shows: an array whose tasks each wait for the same task of another (aftercorr), and a job that
# gathers what all of them made. Run it with bash, it is no job itself. Expect: 1 4 9 16 in squares.out.
#   bash array_chain.sh
set -eu
numbers=$(sbatch --parsable -J numbers -t 5 -a 1-4 -o /dev/null \
    --wrap 'echo $SLURM_ARRAY_TASK_ID > number.$SLURM_ARRAY_TASK_ID')
squares=$(sbatch --parsable -J squares -t 5 -a 1-4 -o /dev/null --dependency="aftercorr:$numbers" \
    --wrap 'n=$(cat number.$SLURM_ARRAY_TASK_ID); echo $((n * n)) > square.$SLURM_ARRAY_TASK_ID')
sbatch --parsable -W -J gather -t 5 -o squares.out --dependency="afterok:$squares" --wrap 'cat square.? | xargs'
