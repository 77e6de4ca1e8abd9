"""Runs every query of a Grafana dashboard on a Prometheus, once that has scraped Penstock, and looks at its rules.

Queries must be taken; those of metrics that any cluster has must answer something.
"""
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

BASE, DASHBOARD, LOG = sys.argv[1:]
PATIENCE = 120
# What a small cluster need not have.
MAY_BE_EMPTY = ("penstock_mig_slices", "penstock_account_", "penstock_jobs_pending_reason")


def ask(path, **query):
    url = f"{BASE}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{path} {query}: {error.read().decode()}")
    except OSError:
        return None


def until(what, holds):
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if holds():
            return
        time.sleep(0.2)
    print(open(LOG).read()[-3000:], file=sys.stderr)
    sys.exit(f"not within {PATIENCE} s: {what}")


def answers(query):
    data = ask("query", query=query)
    return data and data["result"]


until("Prometheus scrapes Penstock", lambda: answers('up{job="penstock"} == 1'))
until("it has scraped twice", lambda: answers("count_over_time(penstock_nodes[1m]) >= 2"))
panels = json.load(open(DASHBOARD))["panels"]
queries = [target["expr"] for panel in panels for target in panel["targets"]]
for query in queries:
    may_be_empty = any(name in query for name in MAY_BE_EMPTY)
    if may_be_empty:
        answers(query)
    else:
        until(f"an answer to {query}", lambda: answers(query))
groups = ask("rules")["groups"]
rules = [rule for group in groups for rule in group["rules"]]
until("all rules are evaluated", lambda: all(
    rule["health"] == "ok" for group in ask("rules")["groups"] for rule in group["rules"]))
firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
if firing:
    sys.exit(f"alerts fire on a healthy cluster: {firing}")
print(f"{len(queries)} queries and {len(rules)} rules run in Prometheus")
