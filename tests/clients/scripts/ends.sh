#!/bin/bash
# On a login node: how jobs end, and what is told of it.
sbatch -W -t 5 --mem=50 -o fails.out --wrap 'exit 3' > ends.txt; echo "exit 3: $?"
sbatch -W -t 5 --mem=50 -o killed.out --wrap 'kill -TERM $$' >> ends.txt; echo "killed: $?"
sbatch -W -t 5 --mem=50 -o step.out --wrap 'srun false; echo on' >> ends.txt; echo "a step failed: $?"
sbatch -W -t 5 --mem=50 -o nofile/sub.out --wrap 'true' >> ends.txt; echo "no folder for the output: $?"
job=$(sbatch --parsable -t 5 --mem=50 -o cancelled.out --wrap 'srun sleep 300')
until squeue -h -s -o %i | grep -q "^$job.0"; do sleep 0.1; done
scancel $job
until [ "$(squeue -h -j $job -t all -o %t)" = CA ]; do sleep 0.1; done
echo "$job" >> ends.txt
for job in $(awk '{ print $NF }' ends.txt); do
    until sacct -n -P -X -o end -j $job | grep -q T; do sleep 0.1; done
    sacct -n -P -X -o state,exitcode -j $job | sed 's/by [0-9]*/by UID/'
done
cat step.out | sed 's/node[0-9]/NODE/'
grep -q "STEP $job.0 ON node[0-9] CANCELLED AT 20" cancelled.out && echo "cancelled as a step"
