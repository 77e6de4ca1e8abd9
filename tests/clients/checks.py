"""What the checks of all clients share: they are functions named test_*, run by `main`.

A check raises where something is not as the client needs it. Waiting is for conditions, with a limit.
"""

import concurrent.futures
import os
import subprocess
import sys
import time
import traceback


def run(*command, status=0, **options):
    """Runs a command, checks its exit status and returns what it printed on standard output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if status is not None and done.returncode != status:
        raise AssertionError(
            f"{command}: exit status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def wait_until(what, condition, limit=60):
    """Waits until `condition()` is true; fails after `limit` seconds, with what it said last."""
    end = time.monotonic() + limit
    while not (last := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit} s for: {what}; last seen: {last!r}\n{run('squeue')}")
        time.sleep(0.1)
    return last


def equal(got, expected, of=""):
    """Fails unless both are equal."""
    if got != expected:
        raise AssertionError(f"{of}: got {got!r}, expected {expected!r}")


def state(job):
    """The state of a job in the accounting, without what follows its first word."""
    words = run("sacct", "-n", "-P", "-X", "-o", "state", "-j", str(job)).split()
    return words[0] if words else ""


def main(names, at_once=1):
    """Runs every test_* of `names` (a module's globals), `at_once` of them at a time, and ends the
    process: 0 if all passed. With arguments: only those whose name contains one."""
    wanted = sys.argv[1:]
    checks = [
        (name[len("test_"):], check)
        for name, check in names.items()
        if name.startswith("test_") and (not wanted or any(word in name for word in wanted))
    ]
    failed = 0

    def timed(check):
        began = time.monotonic()
        try:
            check()
            return time.monotonic() - began, None
        except BaseException:  # a SystemExit of a client's library is a failure too
            return time.monotonic() - began, traceback.format_exc()

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        results = [(name, pool.submit(timed, check)) for name, check in checks]
        for name, result in results:
            seconds, error = result.result()
            print(f"  {'FAILED' if error else 'ok'}: {name} ({seconds:.1f}s)", flush=True)
            if error:
                failed += 1
                print(error, flush=True)
    sys.stdout.flush()
    # Threads that a client's library left behind must not keep the process.
    if at_once > 1:
        os._exit(1 if failed or not checks else 0)
    sys.exit(1 if failed or not checks else 0)
