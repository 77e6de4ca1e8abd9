"""Monitors, dashboards and editors: the command lines that they run, and what they read from the answers.

Nothing here is their code: the lines and the parsing rules are theirs as facts.
"""

import collections
import json
import os
import re
import subprocess
import time

from checks import equal, main, run, wait_until

USER = os.environ.get("USER") or "root"
JOB = {}


def start():
    """A job that runs on two nodes, one that can never start, one that failed."""
    JOB["runs"] = run("sbatch", "--parsable", "-J", "watched", "-N2", "-n2", "--mem=200M", "-t", "30", "-o",
                      "/dev/null", "--comment=seen", "--wrap", "srun sleep 300").strip()
    JOB["waits"] = run("sbatch", "--parsable", "-J", "waits", "-H", "-a", "1-3", "--wrap", "true").strip()
    JOB["failed"] = run("sbatch", "--parsable", "-J", "fails", "-o", "fails.%j", "--wrap", "exit 3").strip()
    wait_until("the job to run", lambda: f"{JOB['runs']}.0" in run("squeue", "-h", "-s", "-o", "%i"))
    wait_until("a job to fail", lambda: "F" == run("squeue", "-h", "-t", "all", "-j", JOB["failed"], "-o", "%t").strip())


def test_an_exporter_counts_nodes_cpus_and_jobs():
    # CPUs: allocated/idle/other/total.
    cpus = [int(n) for n in run("sinfo", "-h", "-o", "%C").strip().split("/")]
    equal((len(cpus), cpus[3]), (4, 16))
    equal(sum(cpus[:3]), 16)
    assert cpus[0] >= 2, cpus
    # Nodes by state: a count and a word, with commas or bars.
    nodes = collections.Counter()
    for line in run("sinfo", "-h", "-o", "%D|%T|%b").splitlines():
        count, word, _ = line.split("|")
        nodes[word] += int(count)
    equal(sum(nodes.values()), 4)
    assert set(nodes) <= {"idle", "mixed", "allocated"}, nodes
    states = collections.Counter(line.split(",")[0] for line in
                                 run("squeue", "-a", "-r", "-h", "-o", "%T,%C,%r,%u", "--states=all").splitlines())
    assert states["RUNNING"] >= 1 and states["PENDING"] >= 3 and states["FAILED"] >= 1, states
    for line in run("squeue", "-a", "-r", "-h", "-o", "%A|%u|%T|%C").splitlines():
        job, user, state, count = line.split("|")
        assert job.isdigit() and user and state.isupper() and count.isdigit(), line
    for line in run("squeue", "-a", "-r", "-h", "-o", "%A|%a|%T|%C").splitlines():
        equal(len(line.split("|")), 4, line)
    for line in run("sinfo", "-h", "-o", "%R,%C").splitlines():
        assert re.fullmatch(r"[\w-]+,\d+/\d+/\d+/\d+", line), line
    for line in run("squeue", "-a", "-r", "-h", "-o", "%P", "--states=PENDING").splitlines():
        equal(line.strip(), "main")
    rows = run("sinfo", "-h", "-N", "-O", "NodeList,AllocMem,Memory,CPUsState,StateLong").splitlines()
    equal(len(rows), 4)
    for row in rows:
        name, used, memory, state, word = row.split()
        assert name.startswith("node") and int(used) <= int(memory) == 4096, row
        equal(len(state.split("/")), 4, row)
        assert word in ("idle", "mixed", "allocated"), row
    run("sinfo", "-h", "--Format=Nodes: ,GresUsed:", "--state=allocated", status=None)


def test_an_exporter_reads_sdiag_line_by_line():
    found = {}
    for line in run("sdiag").splitlines():
        match = re.match(r"\s*(Server thread count|Agent queue size|DBD Agent queue size|Last cycle|Mean cycle|"
                         r"Cycles per minute|Last depth cycle|Depth Mean|Total backfilled jobs \(since last slurm start\)|"
                         r"Total cycles|Jobs submitted|Jobs started|Jobs completed|Jobs canceled|Jobs failed):\s+(\d+)$", line)
        if match:
            found.setdefault(match[1], int(match[2]))
    for name in ("Server thread count", "Agent queue size", "Last cycle", "Mean cycle", "Jobs submitted",
                 "Jobs started", "Total backfilled jobs (since last slurm start)"):
        assert name in found, (name, sorted(found))
    assert found["Jobs submitted"] >= 3, found


def test_an_exporter_reads_json():
    jobs = json.loads(run("squeue", "--json"))["jobs"]
    mine, = [job for job in jobs if str(job["job_id"]) == JOB["runs"]]
    equal((mine["name"], mine["job_state"], mine["partition"], mine["user_name"]), ("watched", "RUNNING", "main", USER))
    for key in ("account", "end_time", "start_time", "submit_time", "tres_alloc_str", "job_resources", "state_reason"):
        assert key in mine, key
    nodes = json.loads(run("sinfo", "--json"))["nodes"]
    equal(sorted(node["name"] for node in nodes), ["node1", "node2", "node3", "node4"])
    for node in nodes:
        equal((node["cpus"], node["real_memory"]), (4, 4096))
        for key in ("state", "free_memory", "alloc_memory", "alloc_cpus", "idle_cpus", "partitions", "weight"):
            assert key in node, key
    # Where a fallback is configured the same comes from a format of JSON's own pieces.
    text = run("squeue", "-h", "-r", "-o", '{"a": "%a", "id": %A, "end_time": "%e", "state": "%T", "p": "%P", '
               '"cpu": %C, "mem": "%m", "array_id": "%K", "r": "%R"}')
    for line in text.splitlines():
        json.loads(line)
    text = run("sinfo", "-h", "-o", '{"s": "%T", "mem": %m, "n": "%n", "l": "%O", "p": "%R", "fmem": "%e", "cstate": "%C", "w": %w}')
    # Nodes of one host, as these are, share a line where all else is equal.
    equal(sum(int(json.loads(line)["cstate"].split("/")[3]) for line in text.splitlines()), 16)
    run("sdiag", "--json", status=None)
    equal(run("scontrol", "show", "lic", "-o"), run("scontrol", "show", "licenses", "-o"))


def test_accounting_exporters_and_dashboards():
    for line in run("sshare", "-n", "-P", "-o", "account,fairshare").splitlines():
        assert line.count("|") == 1, line
    run("sacctmgr", "-n", "-P", "show", "assoc", "format=cluster,account,user,qos")
    now = int(time.time())
    text = run("sacct", "-a", "-X", "-n", "-P", "--format=AllocTRES,State,User", "--state=RUNNING",
               f"--starttime={time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(now - 3600))}", "--endtime=now")
    assert any("cpu=2" in line and "RUNNING" in line for line in text.splitlines()), text


def test_the_terminal_browser_turm():
    sep = "###turm###"
    fields = ["jobid", "name", "state", "username", "timeused", "tres-alloc", "partition", "nodelist", "stdout",
              "stderr", "command", "statecompact", "reason", "ArrayJobID", "ArrayTaskID", "NodeList", "WorkDir"]
    text = run("squeue", "--array", "--noheader", "--Format", ",".join(f"{field}:{sep}" for field in fields))
    rows = [line.split(sep) for line in text.splitlines()]
    mine, = [row for row in rows if row[0].strip() == JOB["runs"]]
    equal(len(mine), len(fields) + 1)
    equal((mine[1], mine[2], mine[3], mine[6], mine[11], mine[8]),
          ("watched", "RUNNING", USER, "main", "R", "/dev/null"))


def test_gpu_and_node_lists_with_scontrol():
    for line in run("scontrol", "-a", "show", "-o", "nodes").splitlines():
        found = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
        assert found["NodeName"].startswith("node") and found["Partitions"] == "main" and "Gres" in found, line
        equal(found["CPUTot"], "4")
    line = run("scontrol", "show", "jobid", "-dd", JOB["runs"])
    found = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
    equal((found["JobState"], found["NumNodes"], found["JobName"]), ("RUNNING", "2", "watched"))
    assert re.search(r"Nodes=node\d CPU_IDs=\S+ Mem=200 GRES=", line) or "node[" in line, line
    equal(run("scontrol", "show", "hostnames", found["NodeList"]).split().__len__(), 2)
    assert re.search(r"slurm \d+\.\d+\.\d+", run("sinfo", "-V")), run("sinfo", "-V")
    run("sinfo", "-o", "%1000N", "--noheader")
    run("sinfo", "-O", "nodehost:20,gres:50,gresused:50,statelong", "-h", "-N")


def test_web_portals_and_editors():
    # Records with characters that no name has between them, times and sizes unconverted.
    fields = {"id": "%i", "state": "%t", "user": "%u", "name": "%j", "nodes": "%N", "reason": "%r", "minutes": "%M",
              "cpus": "%C", "mem": "%m", "gres": "%b", "account": "%a", "partition": "%P", "end": "%e", "dir": "%Z"}
    text = run("squeue", "--all", "--states=all", "--noconvert", "--format=\x1e" + "\x1f".join(fields.values()))
    records = [dict(zip(fields, record.split("\x1f"))) for record in text.split("\x1e")[2:]]
    mine, = [record for record in records if record["id"] == JOB["runs"]]
    equal((mine["state"], mine["name"], mine["partition"], mine["mem"]), ("R", "watched", "main", "200M"))
    equal(run("squeue", "--me", "--noheader", "-j", JOB["runs"], "-o", "%i %N %T").split()[2], "RUNNING")
    # One that is remembered, one that never was.
    assert run("squeue", "--noheader", "-j", JOB["failed"]) == ""
    gone = subprocess.run(["squeue", "-h", "-j", "987654"], capture_output=True, text=True)
    equal((gone.returncode, gone.stderr), (1, "slurm_load_jobs error: Invalid job id specified\n"))
    text = run("sacct", "-j", JOB["failed"], "--noheader", "-X", "--format=JobID%30,State%20,ExitCode,NodeList%100")
    equal(text.split()[:3], [JOB["failed"], "FAILED", "3:0"])
    text = run("sinfo", "--noheader", "--format=%P|%a|%l|%D|%t|%N|%G")
    assert all(line.count("|") == 6 and line.startswith("main*|up|infinite|") for line in text.splitlines()), text
    run("scontrol", "show", "partition", "-o")
    run("sacct", "--helpformat")


def test_an_engine_that_polls_as_nextflow_does():
    text = run("squeue", "--noheader", "-o", "%i %t", "-t", "all", "-p", "main", "-u", USER)
    states = dict(line.split() for line in text.splitlines())
    equal((states[JOB["runs"]], states[JOB["failed"]]), ("R", "F"))
    equal(states[f"{JOB['waits']}_[1-3]"], "PD")
    run("scancel", *[f"{JOB['waits']}_{task}" for task in (1, 3)])
    wait_until("one task left", lambda: run("squeue", "-h", "-j", JOB["waits"], "-o", "%K").strip() == "2")


def test_status_by_epoch_seconds_as_aiida_and_qtoolkit_ask():
    env = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    text = run("squeue", "--noheader", "-o", "%i^^^%t^^^%r^^^%B^^^%u^^^%D^^^%C^^^%R^^^%P^^^%l^^^%M^^^%S^^^%j^^^%V",
               f"--jobs={JOB['runs']},{JOB['runs']}", env=env)
    fields = text.strip().split("^^^")
    equal((fields[0], fields[1], fields[5]), (JOB["runs"], "R", "2"))
    assert abs(int(fields[11]) - time.time()) < 3600, fields
    text = run("scontrol", "show", "job", "-o", JOB["runs"], env={**os.environ, "SLURM_TIME_FORMAT": "standard"})
    assert re.search(r"StartTime=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ", text), text
    equal(run("sacct", "--format=jobid,state", "--parsable", "--noheader", "-X", "-j", JOB["runs"]),
          f"{JOB['runs']}|RUNNING|\n")


if __name__ == "__main__":
    start()
    try:
        main(globals())
    finally:
        run("scancel", JOB["runs"], JOB["waits"])
