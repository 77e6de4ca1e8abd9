#!/bin/bash
# Shows: JAX on two nodes without a setting: jax.distributed.initialize() finds rank, number of
# processes and head node in what srun gives each task. Expect: two lines "process P of 2: sum 3.0" in
# jax-<job id>.out.
#   sbatch jax.sh                    PYTHON=python3 chooses a Python that has jax
#SBATCH --job-name=jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --mem=2G
#SBATCH --time=5
#SBATCH --output=jax-%j.out

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
srun --label "${PYTHON:-python3}" - <<'END'
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

jax.distributed.initialize()
mine = jnp.array([jax.process_index() + 1.0])
total = multihost_utils.process_allgather(mine).sum()
print(f"process {jax.process_index()} of {jax.process_count()}: sum {total}", flush=True)
END
