#!/bin/bash
#SBATCH --job-name=requeue
#SBATCH --time=0-00:10:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=requeue.out
#SBATCH --mem=50
# Saves itself when it is told to and asks to be started again.
restarts=${SLURM_RESTART_COUNT:-0}
echo "start number $restarts"
save() {
    echo "saving"
    echo "$((restarts + 1))" > state.txt
    scontrol requeue $SLURM_JOB_ID
    sleep 60
}
trap save USR1
if [ -f state.txt ]; then
    echo "going on from $(cat state.txt)"
    exit 0
fi
touch ready.txt
sleep 300 &
wait
