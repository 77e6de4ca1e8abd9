#!/bin/bash
#SBATCH --job-name=packing
#SBATCH --nodes=1
#SBATCH --ntasks=3
#SBATCH --cpus-per-task=1
#SBATCH --mem=300M
#SBATCH --time=5:00
#SBATCH --output=packing.out
# More pieces of work than there is room for: srun makes the rest wait.
export SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
for i in $(seq 1 7); do
    srun --ntasks=1 --nodes=1 --exclusive --mem=20M --job-name=piece$i \
        bash -c "sleep 0.3; echo piece $i did; exit $((i == 5 ? 4 : 0))" > piece$i.log 2> piece$i.err &
    pids[$i]=$!
done
for i in $(seq 1 7); do
    wait ${pids[$i]} || echo "piece $i ended with $?"
done
wait
cat piece?.log
grep -h 'Exited with' piece5.err | sed 's/^srun: error: node[0-9]: //'
