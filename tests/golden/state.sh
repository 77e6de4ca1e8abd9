# The state of a cluster that the listings of commands.txt are about, made with Slurm's commands only,
# so that Slurm and Penstock can be brought into it alike: four nodes of four CPUs, partitions main
# (all of them) and long (two of them). Run with `sh -e` in an empty folder, as root.
wait_for() { # STATE JOB: until squeue shows it in that state
    tries=0
    until [ "$(squeue -h -t all -o %T -j "$2" 2>/dev/null | sort -u)" = "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "job $2 is not $1 but: $(squeue -h -t all -j "$2")" >&2; exit 1; }
        sleep 0.1
    done
}
printf '#!/bin/sh\n# batch script of the golden state\n"$@"\n' > job.sh
chmod +x job.sh

# 1: over two nodes, with every word that a listing can show of it.
sbatch --priority=1000 -J two-nodes -N 2 -n 3 --mem=100 -t 1:00:00 --comment='a comment' --nice=10 \
    -o out.%j -e err.%j job.sh sleep 1000
wait_for RUNNING 1
# 2: ends well, 3: fails, 4: is cancelled while it runs, 5: is killed by a signal.
sbatch --priority=200 -J good -o /dev/null -t 5 job.sh true
wait_for COMPLETED 2
sbatch --priority=300 -J bad -o /dev/null -n 2 -t 5 job.sh exit 3
wait_for FAILED 3
sbatch --priority=400 -J stopped -o /dev/null -t 5 job.sh sleep 1000
wait_for RUNNING 4
scancel 4
wait_for CANCELLED 4
sbatch --priority=500 -J killed -o /dev/null -t 5 --wrap 'kill -9 $$'
wait_for FAILED 5
# 6: is held. 7: waits for a time. 8: waits for another. 9: can't fit yet.
sbatch -H -J held -t 2-00:00:00 -c 2 --mem-per-cpu=50M -p long,main --wrap 'true'
sbatch --priority=700 -J later -b now+3days -t 10 --exclusive -w node3 job.sh true
sbatch --priority=800 -J after -d afterok:1:7 -t 10 --no-requeue -D /tmp -x node4 "$PWD/job.sh" true
sbatch --priority=900 -J large -N 3 --exclusive -t 30:00 job.sh true
# 10: an array of which nothing runs. 11: cancelled before it ran.
sbatch -H -J many -a 0-30:3,40%2 -t 15 -o a.%A.%a job.sh true
sbatch -H -J never -t 5 job.sh true
scancel 11
wait_for CANCELLED 11
# 12: an array of which a task runs.
sbatch --priority=1200 -J tasks -a 1-3%1 -t 20 -p long --mem=10 -o /dev/null job.sh sleep 1000
wait_for RUNNING 12_1
# A node that is drained, one that is described.
scontrol update NodeName=node4 State=DRAIN Reason='bad fan'
scontrol update NodeName=node3 Weight=5 Comment='in the corner'
# What runs has run for a second: then what is left of its limit is less than the whole.
tries=0
while squeue -h -t RUNNING -o %M | grep -qx '0:00'; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "the clock of the running jobs stands still" >&2; exit 1; }
    sleep 0.1
done
