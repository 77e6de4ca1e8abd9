"""submitit: functions sent to the cluster as pickles, their results and exceptions brought back."""

import os
import time
from pathlib import Path

import submitit
from checks import equal, main, run, state, wait_until

LOGS = Path("submitit").absolute()


def executor(name, **parameters):
    """An executor with a folder of its own that asks `sacct` often."""
    made = submitit.AutoExecutor(LOGS / name, cluster="slurm")
    made.update_parameters(timeout_min=5, cpus_per_task=1, mem_gb=0.2, name=name, **parameters)
    return made


def until_state(job, wanted):
    """Waits until submitit itself sees the job in a state."""
    def seen():
        job.get_info(mode="force")
        return job.state == wanted
    wait_until(f"job {job.job_id} to be {wanted} for submitit (it is {job.state})", seen)


def square(number):
    return number * number


def where_am_i():
    env = submitit.JobEnvironment()
    return {
        "rank": env.global_rank, "local": env.local_rank, "node": env.node,
        "tasks": env.num_tasks, "nodes": env.num_nodes, "hosts": env.hostnames,
        "host": os.environ["SLURMD_NODENAME"], "job": env.job_id,
    }


class Counting:
    """Counts to `end` and, asked to stop, goes on from where it was in its next attempt."""

    def __init__(self, started):
        self.started = Path(started)
        self.reached = 0
        self.attempts = 0

    def __call__(self, end):
        self.attempts += 1
        self.started.write_text(str(self.attempts))
        if self.attempts == 1:
            self.reached = end
            time.sleep(300)
        return self.reached, self.attempts, os.environ.get("SLURM_RESTART_COUNT")

    def checkpoint(self, end):
        return submitit.helpers.DelayedSubmission(self, end)


def test_a_result_comes_back():
    job = executor("one").submit(square, 12)
    equal(job.result(), 144)
    until_state(job, "COMPLETED")


def test_an_array_has_its_results_in_order():
    jobs = executor("array", slurm_array_parallelism=4).map_array(square, range(10))
    equal([job.result() for job in jobs], [n * n for n in range(10)])
    equal(len({job.job_id.split("_")[0] for job in jobs}), 1, "array jobs")
    until_state(jobs[9], "COMPLETED")


def test_a_batch_is_one_array():
    many = executor("batch")
    with many.batch():
        jobs = [many.submit(square, n) for n in (3, 4)]
    equal([job.result() for job in jobs], [9, 16])


def test_tasks_on_two_nodes_know_their_places():
    job = executor("tasks", nodes=2, tasks_per_node=2).submit(where_am_i)
    seen = job.results()
    equal([task["rank"] for task in seen], [0, 1, 2, 3])
    equal([task["local"] for task in seen], [0, 1, 0, 1])
    equal([task["node"] for task in seen], [0, 0, 1, 1])
    for task in seen:
        equal((task["tasks"], task["nodes"], len(task["hosts"])), (4, 2, 2))
        equal(task["hosts"][task["node"]], task["host"])
        equal(task["job"], job.job_id)


def test_an_exception_comes_back_and_the_job_failed():
    job = executor("raises").submit(square, "a word")
    try:
        job.result()
        raise AssertionError("no error from a function that raised")
    except submitit.core.utils.FailedJobError as error:
        assert "can't multiply sequence" in str(error), error
    assert "can't multiply sequence" in job.stderr()


def test_what_a_job_prints_is_in_its_files():
    def talk():
        print("to standard output", flush=True)
        os.write(2, b"to standard error\n")
        return os.getcwd()
    job = executor("prints").submit(talk)
    job.result()
    assert "to standard output" in job.stdout(), job.stdout()
    assert "to standard error" in job.stderr(), job.stderr()


def test_a_job_that_is_cancelled_has_no_result():
    job = executor("cancelled").submit(time.sleep, 300)
    until_state(job, "RUNNING")
    job.cancel()
    wait_until("the cancelled job to end", job.done)
    wait_until("CANCELLED", lambda: state(job.job_id) == "CANCELLED")
    try:
        job.result()
        raise AssertionError("a result from a job that was cancelled")
    except submitit.core.utils.UncompletedJobError:
        pass


def test_a_process_that_dies_has_no_result():
    job = executor("dies").submit(os._exit, 7)
    try:
        job.result()
        raise AssertionError("a result from a process that died")
    except submitit.core.utils.UncompletedJobError:
        pass
    until_state(job, "FAILED")
    assert "Exited with exit code 7" in job.stderr(), job.stderr()


def test_a_preempted_job_saves_itself_and_goes_on():
    started = LOGS / "preempted.started"
    job = executor("preempted").submit(Counting(started), 5)
    wait_until("the first attempt", lambda: started.exists() and started.read_text() == "1")
    job._interrupt()
    wait_until("the job to be requeued", lambda: "PENDING" in run("squeue", "-h", "-o", "%T", "-j", job.job_id)
               or started.read_text() == "2")
    # Slurm waits two minutes before it starts a requeued job again.
    run("scontrol", "update", f"JobId={job.job_id}", "StartTime=now", status=None)
    equal(job.result(), (5, 2, "1"))


def test_a_job_at_its_time_limit_saves_itself_and_goes_on():
    started = LOGS / "limit.started"
    late = executor("limit", slurm_signal_delay_s=40)
    late.update_parameters(timeout_min=1)
    job = late.submit(Counting(started), 7)
    wait_until("the second attempt", lambda: started.exists() and (
        started.read_text() == "2"
        or run("scontrol", "update", f"JobId={job.job_id}", "StartTime=now", status=None) is None), 90)
    equal(job.result(), (7, 2, "1"))


def test_a_job_that_cannot_save_itself_fails_at_its_time_limit():
    late = executor("lost", slurm_signal_delay_s=40)
    late.update_parameters(timeout_min=1)
    job = late.submit(time.sleep, 300)
    try:
        job.result()
        raise AssertionError("a result from a job that timed out")
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
        assert "not checkpointable" in str(error), error


def test_a_command_and_a_dependency():
    first = executor("first").submit(square, 2)
    after = executor("after", slurm_additional_parameters={"dependency": f"afterok:{first.job_id}"})
    function = submitit.helpers.CommandFunction(["echo", "in the command"])
    job = after.submit(function)
    assert "in the command" in job.result()
    equal(first.result(), 4)


def test_a_wrong_partition_is_said():
    try:
        executor("nowhere", slurm_partition="nowhere").submit(square, 1)
        raise AssertionError("a job in a partition that is not there")
    except submitit.core.utils.FailedJobError as error:
        assert "Invalid partition name specified" in str(error), error


if __name__ == "__main__":
    LOGS.mkdir(exist_ok=True)
    main(globals(), at_once=6)
