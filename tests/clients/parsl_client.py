"""Parsl: blocks of workers as jobs of its SlurmProvider, apps as functions and as shell lines."""

import parsl
from checks import equal, main, run, state, wait_until
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.jobs.states import JobState
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider


def provider(**options):
    settings = dict(partition="main", nodes_per_block=2, cores_per_node=2, init_blocks=1, min_blocks=1,
                    max_blocks=1, walltime="00:10:00", exclusive=False, mem_per_node=1,
                    scheduler_options="#SBATCH --comment=parsl", launcher=SrunLauncher())
    return SlurmProvider(**{**settings, **options})


@parsl.python_app
def where(number):
    import os
    import time
    time.sleep(0.2)
    return number, os.environ["SLURMD_NODENAME"], os.environ["SLURM_JOB_ID"]


@parsl.bash_app
def shell(word, stdout=None):
    return f"echo shell says {word} in $SLURM_JOB_NUM_NODES nodes"


def test_a_block_of_two_nodes_runs_apps_and_ends():
    executor = HighThroughputExecutor(
        label="slurm", address="127.0.0.1", max_workers_per_node=2, provider=provider(),
        heartbeat_period=2, heartbeat_threshold=20)
    with parsl.load(Config(executors=[executor], run_dir="parsl-run", usage_tracking=0)):
        results = [future.result(timeout=90) for future in [where(n) for n in range(40)]]
        equal([number for number, _, _ in results], list(range(40)))
        equal(len({node for _, node, _ in results}), 2, "nodes that worked")
        job, = {job for _, _, job in results}
        equal(run("squeue", "-h", "-j", job, "-o", "%D %C %k").strip(), "2 4 parsl")
        equal(shell("hello", stdout="parsl.out").result(timeout=90), 0)
        equal(open("parsl.out").read().strip(), "shell says hello in 2 nodes")
    wait_until("the block to be cancelled", lambda: state(job) == "CANCELLED")


def test_the_provider_sees_the_states_of_its_jobs():
    # One provider for each: it forgets how a job ended once it asks for another.
    ends = {"true": JobState.COMPLETED, "exit 3": JobState.FAILED, "sleep 300": JobState.CANCELLED}
    for command, end in ends.items():
        alone = provider(nodes_per_block=1, cores_per_node=1)
        alone.script_dir = "."
        job = alone.submit(command, 1)
        seen = lambda: alone.status([job])[0].state
        if end == JobState.CANCELLED:
            wait_until("a running job", lambda: seen() == JobState.RUNNING)
            equal(alone.cancel([job]), [True])
        wait_until(f"{command!r} to be {end}", lambda: seen() == end)


if __name__ == "__main__":
    main(globals())
