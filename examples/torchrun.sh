#!/bin/bash
# Shows: PyTorch's own launcher on two nodes, as such scripts usually are: srun starts torchrun once a
# node, torchrun starts two processes there, and they meet at the first node. Expect: "4 processes on 2
# nodes" in torchrun-<job id>.out, which --tee labels with the process.
#   sbatch torchrun.sh               PYTHON=python3 chooses a Python that has torch
#SBATCH --job-name=torchrun
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=1G
#SBATCH --time=5
#SBATCH --output=torchrun-%j.out

nodes=( $(scontrol show hostnames "$SLURM_JOB_NODELIST") )
head_address=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" getent hosts "${nodes[0]}" | awk '{ print $1; exit }')
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo}

cat > "train-$SLURM_JOB_ID.py" <<'END'
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
nodes = torch.zeros(int(os.environ["SLURM_JOB_NUM_NODES"]))
nodes[int(os.environ["SLURM_NODEID"])] = 1
dist.all_reduce(nodes)
if dist.get_rank() == 0:
    print(f"{dist.get_world_size()} processes on {int((nodes > 0).sum())} nodes", flush=True)
dist.destroy_process_group()
END

srun "${PYTHON:-python3}" -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc_per_node "$SLURM_CPUS_PER_TASK" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$head_address:$((20000 + SLURM_JOB_ID % 20000))" \
    --redirects 1 --tee 1 "train-$SLURM_JOB_ID.py"
rm "train-$SLURM_JOB_ID.py"
