#!/bin/bash
#SBATCH -N 2
#SBATCH --ntasks-per-node=2
#SBATCH -t 5
#SBATCH --mem=100
#SBATCH -o hostnames.out
nodes=( $( scontrol show hostnames $SLURM_JOB_NODELIST ) )
nodes_array=($nodes)
head_node=${nodes[0]}
echo "there are ${#nodes[@]} nodes, the head is the first: $([ "$head_node" = "$SLURMD_NODENAME" ] && echo this one)"
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$(expr 10000 + $(echo -n $SLURM_JOBID | tail -c 4))
export WORLD_SIZE=$(($SLURM_NNODES * $SLURM_NTASKS_PER_NODE))
echo "world $WORLD_SIZE master ok $([ -n "$MASTER_ADDR" ] && [ "$MASTER_PORT" -gt 10000 ] && echo yes)"
scontrol show hostnames > machinefile
scontrol show hostlist "$(paste -sd, machinefile)" | sed 's/node\[\([0-9]\)[-,]\([0-9]\)\]/node[A,B]/'
srun -l bash -c 'echo "local $SLURM_LOCALID node $SLURM_NODEID of $SLURM_NNODES world $WORLD_SIZE"' | sort
# The head alone, then each node by name.
srun --nodes=1 --ntasks=1 -w "$head_node" bash -c '[ "$SLURMD_NODENAME" = "$MASTER_ADDR" ] && echo on the head'
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do
    srun --nodes=1 --ntasks=1 -w "${nodes[$i]}" --export=ALL,PLACE=$i \
        bash -c 'echo "place $PLACE"; [ "$SLURMD_NODENAME" = "'"${nodes[$i]}"'" ]' || echo "wrong node"
done
srun --ntasks=$SLURM_NNODES --ntasks-per-node=1 bash -c 'echo one a node' | sort | uniq -c
