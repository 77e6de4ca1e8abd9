#!/bin/bash
# Shows: what frameworks find in a task's environment, two nodes with two tasks each, nothing set by
# hand. Where a framework is installed its own detection is asked; for the others their rules are
# applied: which variables they read and what they make of them. Expect: a line for each framework
# and rank, and "all agree" in detect-<job id>.out.
#   sbatch detect.sh                 PYTHON=python3 chooses the Python
#SBATCH --job-name=detect
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --mem=1G
#SBATCH --time=5
#SBATCH --output=detect-%j.out

export OMP_NUM_THREADS=1 DETECT=$SLURM_SUBMIT_DIR/detect-$SLURM_JOB_ID.py
cat > "$DETECT" <<'END'
import os
import re
import subprocess

env = os.environ
rank, world, local = (int(env[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
nodes = subprocess.check_output(["scontrol", "show", "hostnames", env["SLURM_STEP_NODELIST"]], text=True).split()
expected = (rank, world, local, nodes[0])


def lightning():
    # Takes Slurm for the launcher where a job of a name other than "bash" or "interactive" has tasks.
    assert env["SLURM_JOB_NAME"] not in ("bash", "interactive") and int(env["SLURM_NTASKS"]) > 1
    first = env.get("SLURM_NODELIST", "127.0.0.1")
    head = re.sub(r"\[(.*?)[,-].*\]", r"\1", first)
    head = re.sub(r"\[(.*?)\]", r"\1", head)
    assert 0 <= int(env["SLURM_NODEID"]) < len(nodes) and int(env["SLURM_JOB_ID"][-4:]) >= 0
    return int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"]), int(env["SLURM_LOCALID"]), head


def installed_lightning():
    from lightning_fabric.plugins.environments import SLURMEnvironment
    assert SLURMEnvironment.detect()
    found = SLURMEnvironment()
    return found.global_rank(), found.world_size(), found.local_rank(), found.main_address


def jax():
    # Coordinator: the first host of SLURM_STEP_NODELIST, a port from the job's id.
    names = env["SLURM_STEP_NODELIST"]
    delimiter = next((at for at, letter in enumerate(names) if letter in ",["), len(names))
    head = names[:delimiter]
    if delimiter < len(names) and names[delimiter] == "[":
        head += re.match(r"[^],-]*", names[delimiter + 1:]).group()
    assert int(env["SLURM_JOB_ID"]) > 0
    return int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"]), int(env["SLURM_LOCALID"]), head


def installed_jax():
    from jax._src.clusters.slurm_cluster import SlurmCluster
    assert SlurmCluster.is_env_present()
    more = SlurmCluster.get_coordinator_address.__code__.co_argcount - 2  # a port by hand, since 0.7
    address = SlurmCluster.get_coordinator_address(10, *[None] * more)
    return (SlurmCluster.get_process_id(), SlurmCluster.get_process_count(), SlurmCluster.get_local_process_id(),
            address.rsplit(":", 1)[0])


def tensorflow():
    # SlurmClusterResolver: "2(x2),1" tasks on the hosts of the step, in order, ports counted up a host.
    tasks = []
    for part in env["SLURM_STEP_TASKS_PER_NODE"].split(","):
        count, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups()
        tasks += [int(count)] * int(times or 1)
    places = [(host, at) for host, count in zip(nodes, tasks) for at in range(count)]
    assert len(places) == int(env["SLURM_STEP_NUM_TASKS"])
    host, local = places[int(env["SLURM_PROCID"])]
    return int(env["SLURM_PROCID"]), len(places), local, places[0][0]


def torch():
    # init_process_group and Accelerate, with --mpi=torch.
    assert env["MASTER_ADDR"] and 1024 < int(env["MASTER_PORT"]) < 65536
    return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env["LOCAL_RANK"]), nodes[0]


def installed_accelerate():
    from accelerate import PartialState
    state = PartialState(cpu=True)
    return state.process_index, state.num_processes, state.local_process_index, nodes[0]


for ask in (lightning, installed_lightning, jax, installed_jax, tensorflow, torch, installed_accelerate):
    try:
        found = ask()
    except ImportError as missing:
        if rank == 0:
            print(f"{ask.__name__}: not here ({missing.name})")
        continue
    print(f"{ask.__name__}: rank {found[0]} of {found[1]}, local {found[2]}")
    assert found == expected, (ask.__name__, found, expected)
END
srun --mpi=torch --kill-on-bad-exit "${PYTHON:-python3}" "$DETECT" && echo "all agree"
rm "$DETECT"
