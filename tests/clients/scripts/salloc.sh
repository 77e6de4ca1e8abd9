#!/bin/bash
# On a login node: work in an allocation that lasts as long as a command.
salloc -N2 -t 5 --mem=50 srun -l sh -c 'echo "node $SLURM_NODEID of $SLURM_JOB_NUM_NODES"' 2> salloc.err | sort
sed 's/[0-9][0-9]*/N/' salloc.err | grep -c 'Granted job allocation N'
salloc -Q -N 2 -n 4 -t 5 --mem=50 bash -c '
    echo "tasks $SLURM_NTASKS here $(scontrol show hostnames | wc -l) nodes"
    srun -n4 bash -c "exit \$SLURM_PROCID"
    echo "steps ended with $?"
    exit 5' 2> /dev/null
echo "status $?"
salloc -Q -p nowhere true
echo "status $?"
srun -Q -N1 -n2 -t 5 --mem=50 --output=srun.%t.out bash -c 'echo from $SLURM_PROCID'
cat srun.0.out srun.1.out
echo piped | srun -Q -n1 -t 5 --mem=50 tr a-z A-Z
