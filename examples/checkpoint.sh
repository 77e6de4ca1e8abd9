#!/bin/bash
# Shows: a job that may be preempted. It saves its state after every second step and tells it by
# `penstock checkpoint-done`: jobs that would lose least are preempted first. Requeued, it goes on from
# what it saved. Expect: "step 6 of 6" in checkpoint-<job id>.out, after some 6 seconds.
#   sbatch checkpoint.sh; scontrol requeue <job id>
#SBATCH --job-name=checkpoint
#SBATCH --time=2
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=checkpoint-%j.out

state=checkpoint-$SLURM_JOB_ID.state
step=$(cat "$state" 2>/dev/null || echo 0)
[ "$step" = 0 ] || echo "going on after step $step"
while [ "$step" -lt 6 ]; do
    sleep 1
    step=$((step + 1))
    echo "step $step of 6"
    if [ $((step % 2)) = 0 ]; then
        # Written aside and renamed: whenever the job ends, one whole state is there.
        echo "$step" >"$state.new" && mv "$state.new" "$state"
        penstock checkpoint-done
    fi
done
rm -f "$state"
