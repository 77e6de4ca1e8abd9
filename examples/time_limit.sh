#!/bin/bash
# Shows: a warning before the time limit. The limit is one minute; 50 seconds before it the script
# gets SIGUSR1 (--signal=B: means the script itself), saves its work and ends well. Expect: after
# some 10 seconds "saved at step N" in time_limit-<job id>.out, and COMPLETED, not TIMEOUT.
#   sbatch time_limit.sh
#SBATCH --job-name=time_limit
#SBATCH --time=1
#SBATCH --signal=B:USR1@50
#SBATCH --output=time_limit-%j.out

step=0
save() {
    echo "saved at step $step"
    exit 0
}
trap save USR1

while true; do
    step=$((step + 1))
    # In the background, so that the shell hears the signal at once.
    sleep 1 &
    wait $!
done
