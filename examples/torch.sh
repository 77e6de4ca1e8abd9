#!/bin/bash
# Shows: PyTorch on two nodes, a process each, started by srun alone: `--mpi=torch` sets MASTER_ADDR,
# MASTER_PORT, RANK, WORLD_SIZE and LOCAL_RANK for each task (so does SLURM_MPI_TYPE=torch), which is
# what init_process_group reads. Without it a task has Slurm's variables only. Expect: two lines "rank
# R of 2: sum 3" in torch-<job id>.out.
#   sbatch torch.sh                  PYTHON=python3 chooses a Python that has torch
#SBATCH --job-name=torch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --mem=1G
#SBATCH --time=5
#SBATCH --output=torch-%j.out

srun --mpi=torch --label "${PYTHON:-python3}" - <<'END'
import torch
import torch.distributed as dist

dist.init_process_group("gloo")  # "nccl" on GPUs; the address comes from the environment
one = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(one)
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: sum {int(one)}", flush=True)
dist.destroy_process_group()
END
