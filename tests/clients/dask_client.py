"""dask-jobqueue: workers that are jobs, scaled up and down while work goes on."""

import time

import dask
from checks import equal, main, run, wait_until
from dask.distributed import Client
from dask_jobqueue import SLURMCluster

# Notices sooner than by default that a worker is gone.
dask.config.set({"distributed.comm.timeouts.connect": "20s", "distributed.deploy.lost-worker-timeout": "1s"})


def cluster(name, **options):
    settings = dict(cores=1, processes=1, memory="300MiB", walltime="00:10:00", job_name=name,
                    interface="lo", log_directory="dask-logs", scheduler_options={"dashboard_address": None},
                    worker_extra_args=["--no-dashboard"])
    return SLURMCluster(**{**settings, **options})


def names(wanted):
    """How many jobs of a name are in the queue."""
    return run("squeue", "-h", "-o", "%j").split().count(wanted)


def test_work_is_done_by_jobs_and_they_are_gone_afterwards():
    with cluster("dask-sum", job_extra_directives=["--comment='dask worker'"]) as workers:
        script = workers.job_script()
        assert "#SBATCH --mem=300M" in script and "#SBATCH -t 00:10:00" in script, script
        workers.scale(jobs=2)
        with Client(workers, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            equal(names("dask-sum"), 2, "jobs")
            squares = client.map(lambda n: n * n, range(50))
            equal(client.submit(sum, squares).result(timeout=60), 40425)
            nodes = client.run(lambda: __import__("os").environ["SLURMD_NODENAME"])
            equal(len(nodes), 2)
            assert all(node.startswith("node") for node in nodes.values()), nodes
            workers.scale(jobs=1)
            wait_until("one worker fewer", lambda: names("dask-sum") == 1)
            equal(client.submit(lambda: 6 * 7).result(timeout=60), 42)
    wait_until("no worker left", lambda: names("dask-sum") == 0)


def test_workers_come_as_work_comes():
    with cluster("dask-adapt") as workers:
        workers.adapt(minimum=0, maximum=2, interval="500ms")
        with Client(workers, timeout=60) as client:
            equal(names("dask-adapt"), 0)
            slow = client.map(lambda n: time.sleep(0.2) or n, range(10))
            equal(sum(client.gather(slow)), 45)
            del slow
            wait_until("no worker without work", lambda: names("dask-adapt") == 0)


def test_a_worker_that_is_cancelled_is_replaced():
    with cluster("dask-lost") as workers:
        workers.adapt(minimum=1, maximum=1, interval="500ms")
        with Client(workers, timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
            first = run("squeue", "-h", "-n", "dask-lost", "-o", "%i").strip()
            future = client.submit(lambda: time.sleep(2) or "done")
            run("scancel", first)
            wait_until("the worker to go", lambda: first not in run("squeue", "-h", "-o", "%i").split())
            equal(future.result(timeout=60), "done")


if __name__ == "__main__":
    main(globals())
