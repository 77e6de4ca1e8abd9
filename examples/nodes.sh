#!/bin/bash
# Shows: a job on two nodes, without MPI. The script runs on the first; it sees which nodes it has
# and that each name resolves. Expect: two names with an address each in nodes-<job id>.out.
#   penstock quickstart --nodes 2   (or any cluster with two nodes)
#   sbatch nodes.sh
#SBATCH --job-name=nodes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=1
#SBATCH --output=nodes-%j.out

echo "$SLURM_JOB_NUM_NODES nodes: $SLURM_JOB_NODELIST; tasks on each: $SLURM_TASKS_PER_NODE"
for name in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    getent hosts "$name"
done
