#!/bin/bash
# Shows: jobs that wait for jobs. Run it with bash, it is no job itself: it submits three. Expect:
# "sum" starts when both parts have ended well (afterok) and prints 5050 in sum.out; until then
# `squeue` gives "Dependency" as its reason.
#   bash dependency.sh
set -eu

first=$(sbatch --parsable -J part1 -t 1 -o part1.out --wrap 'seq 1 50')
second=$(sbatch --parsable -J part2 -t 1 -o part2.out --wrap 'seq 51 100')
sbatch -J sum -t 1 -o sum.out --dependency="afterok:$first:$second" \
    --wrap "awk '{ sum += \$1 } END { print sum }' part1.out part2.out"
squeue --me
