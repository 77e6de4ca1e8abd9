#!/bin/bash
# Shows: a notebook server on a node, reached through a tunnel. Expect: the ssh command to type and the
# address to open in jupyter-<job id>.out; the job ends with its time or by scancel.
#   sbatch jupyter.sh                PYTHON=python3 chooses a Python with jupyter (without: a plain server)
#SBATCH --job-name=jupyter
#SBATCH --cpus-per-task=1
#SBATCH --mem=500M
#SBATCH --time=1:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --output=jupyter-%j.out

python=${PYTHON:-python3}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
cat <<END
On your own machine:   ssh -N -L $port:$SLURMD_NODENAME:$port $USER@$SLURM_SUBMIT_HOST
Then open:             http://127.0.0.1:$port/?token=$token
When done:             scancel $SLURM_JOB_ID
END
if "$python" -c 'import jupyterlab' 2> /dev/null; then
    export JUPYTER_TOKEN=$token
    srun --ntasks=1 "$python" -m jupyterlab --no-browser --ip="$SLURMD_NODENAME" --port="$port" &
else
    mkdir -p "notebook-$SLURM_JOB_ID"
    srun --ntasks=1 --chdir="notebook-$SLURM_JOB_ID" "$python" -m http.server --bind "$SLURMD_NODENAME" "$port" &
fi
trap 'kill %1' TERM
wait
