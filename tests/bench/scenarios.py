#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a release does to those who use the server meanwhile: each stack of compose/, released again
and again on real containers while a client that never retries (openloop) counts. Prints one table.

usage: scenarios.py [--rounds N (releases per client)] [--rate N] [--markdown FILE] [--json FILE] [--compose CMD] [NAME...]

Each stack must show what it is there to show; exit status 1 where one does not. Works on a copy of this
tree, in a compose project and on a port of its own: a stack that is up is not touched.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "compose"))
from project import Project, compose_flavours  # noqa: E402

CLIENTS = [("busy", "GET"), ("busy", "POST")]
ALL_CLIENTS = [(mode, method) for mode in ("busy", "idle", "fresh") for method in ("GET", "POST")]


def rows_minus_200s(report):
    return report["rows"]["minus_200s"] if report["rows"] else None


def none_failed(reports):
    return all(r["failed"] == 0 for r in reports)


def cut(reports):
    return any(r["failed_by"][kind] > 0 for r in reports for kind in ("refused", "reset", "eof"))


def some_502(reports):
    return any(r["failed_by"]["5xx"] > 0 for r in reports)


def gets_are_well(reports):
    return none_failed([r for r in reports if r["method"] == "GET"])


def door_holds(reports):
    return none_failed(reports) and all(rows_minus_200s(r) == 0 and r["over_1s"] == 0
                                        for r in reports)


# name, stack, what happens meanwhile, what it must show, in words and as a check, clients
SCENARIOS = [
    ("naive, quiet", "naive", None, "0 failed", none_failed, CLIENTS),
    ("naive, release", "naive", "release", "refused, reset or EOF", cut, CLIENTS),
    ("caddy-proxy, release", "caddy-proxy", "release", "502", some_502, CLIENTS),
    ("caddy-retry, release", "caddy-retry", "release", "the share over 1 s", bool, CLIENTS),
    ("replicas, rolling", "replicas", "rolling-release", "the share over 1 s", bool, CLIENTS),
    ("caddy-tuned, rolling", "caddy-tuned", "rolling-release", "GET: 0 failed", gets_are_well, CLIENTS),
    ("door, release", "compose", "release", "0 failed, none over 1 s", door_holds, CLIENTS),
    ("door-replicas, rolling", "door-replicas", "rolling-release", "0 failed, none over 1 s",
     door_holds, ALL_CLIENTS),
    ("door-bridge, rolling", "door-bridge", "rolling-release", "0 failed, none over 1 s", door_holds,
     CLIENTS),
]


def syn_retransmits(project):
    """Of the network namespace that dials: Caddy's, where there is one."""
    ids = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"label=com.docker.compose.project={project.name}",
         "--filter", "label=com.docker.compose.service=caddy"], capture_output=True, text=True,
        check=True).stdout.split()
    if not ids:
        return None
    text = subprocess.run(["docker", "exec", ids[0], "cat", "/proc/net/netstat"],
                          capture_output=True, text=True, check=True).stdout.splitlines()
    names, values = text[0].split(), text[1].split()
    return int(values[names.index("TCPSynRetrans")])


def client(project, mode, method, rate, svg, marks):
    return subprocess.Popen(
        [ROOT / "bin" / "openloop", "--host", "127.0.0.1", "--port", str(project.port), "--mode", mode,
         "--method", method, *(["--body", "x"] if method == "POST" else []), "--rate", str(rate),
         "--seconds", "3600", "--timeout-ms", "60000", "--rows-from-status", "--json", "--svg", svg, "--marks", marks],
        stdout=subprocess.PIPE, text=True)


def measure(project, action, mode, method, args, folder):
    """One client's report while the stack is released `rounds` times."""
    stem = f"{project.stack}-{action or 'quiet'}-{mode}-{method}"
    marks = folder / f"{stem}.marks"
    marks.write_text("")
    before = syn_retransmits(project)
    load = client(project, mode, method, args.rate, folder / f"{stem}.svg", marks)
    time.sleep(1)
    if action is None:
        time.sleep(2 * args.rounds)
    for _ in range(args.rounds if action else 0):
        with open(marks, "a", encoding="ascii") as out:
            out.write(f"{int(time.time() * 1000)} release\n")
        project.make(action, N="1")
    load.send_signal(signal.SIGINT)
    report = json.loads(load.communicate(timeout=120)[0])
    report["mode"], report["rounds"] = mode, args.rounds if action else 0
    after = syn_retransmits(project)
    report["dial_syn_retrans"] = None if before is None else after - before
    return report


def kinds(report):
    found = [f"{count} {kind}" for kind, count in report["failed_by"].items() if count]
    return ", ".join(found) or "0"


def ms(us):
    return f"{us / 1000:.0f}"


HEAD = ["stack", "client", "releases", "requests", "failed", "p99.9 ms", "max ms", "longest gap ms",
        "over 1 s", "rows - 200s", "SYN retransmits", "must show", "seen"]


def row_of(name, must, seen, report):
    syn = report["dial_syn_retrans"]
    return [name, f"{report['mode']} {report['method']}", str(report["rounds"]), str(report["sent"]),
            kinds(report), ms(report["all_us"]["p99_9"]), ms(report["all_us"]["max"]),
            ms(report["gap_us"]), f"{100 * report['over_1s'] / max(1, report['sent']):.2f} %",
            str(rows_minus_200s(report)),
            str(report["kernel"]["syn_retrans"] if syn is None else syn), must, "yes" if seen else "NO"]


def show(rows, out):
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    for row in [HEAD, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |", file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--markdown")
    parser.add_argument("--json")
    parser.add_argument("--pictures", help="a folder for the timelines")
    parser.add_argument("--compose", default=(compose_flavours() or [None])[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    if not args.compose:
        sys.exit("scenarios: no Docker engine with compose answers here")
    chosen = [s for s in SCENARIOS if not args.names or s[1] in args.names]
    if not chosen:
        sys.exit(f"scenarios: known are {', '.join(sorted({s[1] for s in SCENARIOS}))}")
    rows, records, bad = [], [], 0
    with tempfile.TemporaryDirectory(prefix="harvey-scenarios-") as temporary:
        pictures = Path(args.pictures or temporary).absolute()
        pictures.mkdir(parents=True, exist_ok=True)
        project = Project(Path(temporary) / "tree", "compose", args.compose, quiet=True)
        try:
            for name, stack, action, must, check, clients in chosen:
                project.stack = stack
                project.make("up", COMPOSE=stack)
                reports = [measure(project, action, mode, method, args, pictures)
                           for mode, method in clients]
                seen = check(reports)
                bad += not seen
                rows += [row_of(name, must, seen, report) for report in reports]
                records += [{"scenario": name, **report} for report in reports]
                print(f"{name}: {'as it must' if seen else 'NOT as it must: ' + must}", flush=True)
        finally:
            project.remove()
    show(rows, sys.stdout)
    if args.markdown:
        with open(args.markdown, "w", encoding="utf-8") as out:
            show(rows, out)
    if args.json:
        Path(args.json).write_text(json.dumps(records, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
