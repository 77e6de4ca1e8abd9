"""Old scripts as users have them: what each does and prints is what it did on Debian's Slurm.

`scripts/` has the scripts; `scripts/NAME.txt` is what was seen on Slurm (`tests/clients/beside-slurm
--record`). Ids and times are in neither: the scripts print none.
"""

import getpass
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from checks import main, run, state, wait_until

SCRIPTS = Path(__file__).resolve().parent / "scripts"
RECORD = os.environ.get("PENSTOCK_CLIENTS_RECORD") == "yes"


def in_folder(name, files=()):
    """An empty folder with the script and what it reads."""
    place = Path("scripts", name).absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copy(SCRIPTS / f"{name}.sh", place)
    for file, text in dict(files).items():
        place.joinpath(file).write_text(text)
    return place


def login(place):
    """Runs the script as a user does on a login node."""
    done = subprocess.run(["bash", f"{place.name}.sh"], cwd=place, text=True, stdin=subprocess.DEVNULL, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    return f"{done.stdout}status {done.returncode}\n"


def submit(place):
    """Submits the script; its id."""
    return run("sbatch", "--parsable", f"{place.name}.sh", cwd=place).strip()


def ended(job, tasks=1):
    """Waits until the job has ended and tells how."""
    ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    def over():
        states = run("sacct", "-n", "-P", "-X", "-o", "state", "-j", job).split()
        return len(states) == tasks and all(state in ends for state in states)
    wait_until(f"job {job} to end", over, 120)
    # Their order is that of their start, more or less.
    return "".join(sorted(run("sacct", "-n", "-P", "-X", "-o", "state,exitcode", "-j", job).splitlines(True)))


def files(place, pattern):
    """What files say, in the order of their names."""
    return "".join(file.read_text(errors="replace") for file in sorted(place.glob(pattern)))


def same(name, text):
    """Fails unless the outcome is the one seen on Slurm."""
    kept = SCRIPTS / f"{name}.txt"
    if RECORD:
        kept.write_text(text)
    expected = kept.read_text()
    # Penstock says more, on lines of their own ahead of Slurm's.
    lines = expected.splitlines()
    text = "".join(line for line in text.splitlines(True)
                   if line.rstrip("\n") in lines or not re.match(r"s\w+: error: ", line))
    if text != expected:
        raise AssertionError(f"{name}.sh on Slurm:\n{expected}\nand here:\n{text}")


def job_says(name, pattern="*.out", inputs=(), tasks=1):
    """Submits the script and compares how it ended and what it wrote."""
    place = in_folder(name, inputs)
    job = submit(place)
    same(name, ended(job, tasks) + files(place, pattern))


def test_modules():
    place = in_folder("modules")
    job = submit(place)
    same("modules", ended(job) + files(place, "old_style-*.out") + files(place, "old_style-*.err"))


def test_hostnames():
    job_says("hostnames")


def test_packing():
    job_says("packing")


def test_chain():
    same("chain", login(in_folder("chain")))


def test_requeue():
    place = in_folder("requeue")
    job = submit(place)
    wait_until("the first start", place.joinpath("ready.txt").exists)
    run("scancel", "--batch", "--signal=USR1", job)
    wait_until("the requeue", lambda: state(job) == "PENDING" or "going on" in files(place, "*.out"))
    # Slurm waits two minutes before it starts a requeued job again.
    wait_until("the second start", lambda: "going on" in files(place, "*.out") or run(
        "scontrol", "update", f"JobId={job}", "StartTime=now", status=None) is None, 150)
    told = [line for line in files(place, "*.out").splitlines() if not line.startswith(("slurmstepd", "***"))]
    same("requeue", ended(job) + "\n".join(told) + "\n")


def test_lines():
    job_says("lines", inputs={"params.txt": "alpha 1\nbeta 2\ngamma bad\ndelta 4\n"}, tasks=4)


def test_heredoc():
    same("heredoc", login(in_folder("heredoc")))


def test_tmpdir():
    place = in_folder("tmpdir", {"input.txt": "a\nb\nc\n"})
    same("tmpdir", ended(submit(place)) + files(place, "*.out") + files(place, "result.txt"))


def test_salloc():
    same("salloc", login(in_folder("salloc")))


def test_pty():
    same("pty", login(in_folder("pty")))


def test_sbcast():
    job_says("sbcast")


def test_ends():
    same("ends", login(in_folder("ends")))


if __name__ == "__main__":
    os.environ["USER"] = getpass.getuser()
    main(globals(), at_once=1 if RECORD else 2)
