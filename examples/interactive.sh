#!/bin/bash
# Shows: interactive work. Run it with bash, it is no job itself: a shell with a terminal on a node
# (here its commands come from a pipe, and script(1) is the terminal), and an allocation in which steps
# are started one by one. Expect: "on node... with a terminal" and "two steps done".
#   bash interactive.sh              by hand: srun --pty bash, or salloc -N2
set -eu
script -qec "srun --quiet --time=5 --mem=100M --pty bash -c 'test -t 0 && echo on \$SLURMD_NODENAME with a terminal'" \
    /dev/null < /dev/null
salloc --quiet --nodes=2 --time=5 --mem=100M bash -c 'srun hostname > /dev/null && srun -N1 -n1 true && echo two steps done'
