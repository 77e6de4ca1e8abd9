"""Snakemake with its Slurm executor: rules as jobs, the workflow inside each started by srun."""

import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

from checks import equal, main, run, wait_until

WORKFLOW = """
    rule all:
        input: "total.txt"

    rule part:
        output: "part{n}.txt"
        resources: mem_mb=300, runtime=10
        shell: "echo $SLURM_JOB_ID > {output}"

    rule total:
        input: expand("part{n}.txt", n=range(3))
        output: "total.txt"
        threads: 2
        resources: mem_mb=400, runtime=10
        shell: "cat {input} > {output}; echo threads {threads} >> {output}"
"""

FAILS = """
    rule all:
        input: "good.txt", "bad.txt"
    rule good:
        output: "good.txt"
        resources: mem_mb=300
        shell: "echo well > {output}"
    rule bad:
        output: "bad.txt"
        resources: mem_mb=300
        shell: "exit 9"
"""

LONG = """
    rule all:
        input: "never.txt"
    rule long:
        output: "never.txt"
        resources: mem_mb=300
        shell: "sleep 300; touch {output}"
"""


def folder(name, workflow):
    """An empty folder with the workflow in it."""
    place = Path("snakemake", name)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    place.joinpath("Snakefile").write_text(textwrap.dedent(workflow))
    return place


def command(*more):
    return ["snakemake", "--executor", "slurm", "--jobs", "4", "--default-resources", "slurm_partition=main",
            "--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2",
            "--latency-wait", "10", "--max-status-checks-per-second", "5", *more]


def snakemake(place, *more, status=0):
    done = subprocess.run(command(*more), cwd=place, capture_output=True, text=True, timeout=240)
    equal(done.returncode, status, done.stdout + done.stderr)
    return done.stdout + done.stderr


def test_a_workflow_of_jobs():
    place = folder("good", WORKFLOW)
    said = snakemake(place, "--slurm-efficiency-report")
    lines = place.joinpath("total.txt").read_text().splitlines()
    equal(len({line.split()[0] for line in lines[:3]}), 3, "jobs of the parts")
    equal(lines[3], "threads 2")
    assert "slurm run ID" in said.lower() or "SLURM run ID" in said, said


def test_an_array_of_jobs_seen_by_squeue():
    place = folder("array", WORKFLOW)
    snakemake(place, "--slurm-array-jobs", "all", "--slurm-status-command", "squeue")
    assert "threads 2" in place.joinpath("total.txt").read_text()


def test_a_rule_that_fails_is_a_job_that_failed():
    place = folder("bad", FAILS)
    said = snakemake(place, "--keep-going", status=1)
    equal(place.joinpath("good.txt").read_text(), "well\n")
    assert "Error in rule bad" in said and "FAILED" in said, said


def test_an_interrupted_workflow_cancels_its_jobs():
    place = folder("long", LONG)
    running = lambda: run("squeue", "-h", "-t", "R", "-o", "%k|%i")
    started = subprocess.Popen(command(), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = wait_until("the job", lambda: [line for line in running().splitlines() if "rule_long" in line], 120)
        job = line[0].split("|")[1]
        started.send_signal(signal.SIGINT)
        said, _ = started.communicate(timeout=60)
        wait_until("the job to be cancelled",
                   lambda: run("sacct", "-n", "-X", "-o", "state", "-j", job).startswith("CANCELLED"))
    finally:
        started.kill()


if __name__ == "__main__":
    main(globals(), at_once=2)
