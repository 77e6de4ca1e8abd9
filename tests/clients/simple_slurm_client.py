"""simple_slurm and reportseff: scripts through a here-document, the queue as CSV, efficiency of jobs."""

import os
import subprocess
import sys

from checks import equal, main, run, state, wait_until
from simple_slurm import Slurm


def ended(job, wanted):
    wait_until(f"job {job} to be {wanted} (it is {state(job)})", lambda: state(job) == wanted)


def test_a_script_runs_with_its_options():
    job = Slurm(job_name="simple", output="simple.%j.out", cpus_per_task=2, mem="100M", time="0:10:00")
    number = job.sbatch("echo cpus $SLURM_CPUS_PER_TASK name $SLURM_JOB_NAME", verbose=False)
    ended(number, "COMPLETED")
    equal(open(f"simple.{number}.out").read(), "cpus 2 name simple\n")


def test_an_array_with_its_names():
    job = Slurm(array=range(3, 6), output=f"simple-{Slurm.JOB_ARRAY_MASTER_ID}_{Slurm.JOB_ARRAY_ID}.out")
    number = job.sbatch("echo task " + Slurm.SLURM_ARRAY_TASK_ID, verbose=False)
    wait_until("three tasks", lambda: run("sacct", "-n", "-X", "-o", "state", "-j", str(number)).split()
               == ["COMPLETED"] * 3)
    equal(open(f"simple-{number}_4.out").read(), "task 4\n")


def test_a_dependency_and_parsable():
    first = Slurm(parsable="", output="/dev/null").sbatch("true", verbose=False)
    second = Slurm(dependency=dict(afterok=first), parsable="", output="/dev/null").sbatch("true", verbose=False)
    ended(second, "COMPLETED")


def test_srun_returns_the_status():
    job = Slurm(ntasks="2", time="5")
    equal(job.srun("hostname > /dev/null"), 0)
    try:
        Slurm(ntasks="1").srun("sh -c 'exit 3'")
        raise AssertionError("no error from a step that failed")
    except subprocess.CalledProcessError as error:
        equal(error.returncode, 3)


def test_the_queue_is_read_and_jobs_are_cancelled():
    slurm = Slurm(job_name="simple-wait", output="/dev/null")
    number = slurm.sbatch("srun sleep 300", verbose=False)
    wait_until("it runs", lambda: f"{number}.0" in run("squeue", "-h", "-s", "-o", "%i"))
    slurm.squeue.update_squeue()
    row = slurm.squeue.jobs[number]
    equal((row["NAME"], row["ST"], row["NODES"], row["CPUS"]), ("simple-wait", "R", "1", "1"))
    assert row["NODELIST(REASON)"].startswith("node"), row
    slurm.scancel.signal_job(number)
    wait_until("it ends", lambda: state(number) in ("CANCELLED", "FAILED", "COMPLETED"))
    other = slurm.sbatch("sleep 300", verbose=False)
    slurm.scancel.cancel_job(other)
    ended(other, "CANCELLED")


def test_reportseff_tells_how_jobs_used_what_they_had():
    script = "import time; block = bytearray(60 << 20)\nwhile time.process_time() < 2: pass"
    job = Slurm(job_name="busy", mem="200M", time="0:10:00", output="busy.out")
    number = job.sbatch(f"{sys.executable} -c '{script}'", verbose=False)
    ended(number, "COMPLETED")
    lines = run("reportseff", "--no-color", "--parsable", str(number)).splitlines()
    equal(lines[0], "JobID|State|Elapsed|TimeEff|CPUEff|MemEff")
    found = dict(zip(lines[0].split("|"), lines[1].split("|")))
    equal((found["JobID"], found["State"]), (str(number), "COMPLETED"))
    # Two seconds of CPU time, on a machine that may have much else to do.
    assert float(found["CPUEff"].rstrip("%")) > 0, lines
    assert 25 < float(found["MemEff"].rstrip("%")) < 80, lines
    # By user and since when, and from the names of output files.
    own = run("reportseff", "--no-color", "-u", os.environ.get("USER", "root"), "--since", "h=1", "--format",
              "+jobname,reqmem,nodelist")
    assert any(line.split()[:1] == [str(number)] and "busy" in line for line in own.splitlines()), own
    assert "State: COMPLETED" in run("seff", str(number))


if __name__ == "__main__":
    main(globals(), at_once=3)
