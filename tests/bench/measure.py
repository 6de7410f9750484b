# SPDX-License-Identifier: Apache-2.0
"""Measuring: child processes with their CPU and memory, what strangers took meanwhile, ratios."""

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from harness.process import clean_environment  # noqa: E402  (the path above comes first)

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
STRANGERS_MAX = 0.15  # cores; above, a measurement is marked as disturbed


# ---- strangers: CPU of processes that are not ours ----
def _user_processes():
    """{pid: (parent, CPU seconds with that of reaped children)} without kernel threads."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        pid, parent = int(entry), int(fields[1])
        if pid != 2 and parent != 2:
            found[pid] = (parent, sum(int(field) for field in fields[11:15]) * TICK_S)
    return found


def _is_ours(pid, processes):
    while pid in processes:
        if pid == os.getpid():
            return True
        pid = processes[pid][0]
    return False


class Strangers:
    """with Strangers() as s: ...; then s.cores is what others took, and s.seconds how long it was."""

    def __enter__(self):
        self._before = _user_processes()
        self._start = time.monotonic()
        return self

    def _surviving_parent(self, pid, after):
        while pid in self._before and pid not in after:
            pid = self._before[pid][0]
        return pid

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self._start
        after = _user_processes()
        ancestors, pid = set(), os.getpid()
        while pid in after:  # a shell above us is idle, but reaped CPU of ours counts in it
            ancestors.add(pid)
            pid = after[pid][0]
        before, now = ({pid: cpu for pid, (_, cpu) in processes.items()
                        if pid not in ancestors and not _is_ours(pid, processes)}
                       for processes in (self._before, after))
        taken = sum(now.values()) - sum(before.get(pid, 0.0) for pid in now)
        # One that ended in between: whoever reaped it has its CPU now, also that from before.
        taken -= sum(cpu for pid, cpu in before.items()
                     if pid not in after and self._surviving_parent(pid, after) in now)
        self.cores = max(0.0, taken) / max(self.seconds, 0.001)


# ---- one child, run to its end ----
class Ran:
    def __init__(self, seconds, cpu_s, peak_rss_bytes, output):
        self.seconds, self.cpu_s = seconds, cpu_s
        self.peak_rss_bytes, self.output = peak_rss_bytes, output


def run(argv, env=None, cwd=None, **more):
    """Runs it; its time, CPU and peak RSS as getrusage tells it (wait4). Fails loudly."""
    start = time.monotonic()
    with subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, cwd=cwd,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=env or clean_environment(**more)) as child:
        output = child.stdout.read().decode("utf-8", "replace")
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    if child.returncode != 0:
        raise RuntimeError(f"{argv}: exit {child.returncode}: {output[-800:]}")
    return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


# ---- a running process ----
def cpu_seconds(pid):
    """Nanosecond accounting of all its living threads (a thread that ended is missing)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1e9


def stat_seconds(pid):
    """User and system time from /proc/<pid>/stat, ended threads too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_bytes(pid):
    """(now, peak) resident."""
    text = Path(f"/proc/{pid}/status").read_text()
    return (int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024,
            int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024)


# ---- load ----
def wrk(url, connections, seconds):
    """Requests per second, requests."""
    text = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]).output
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"wrk saw errors: {text}")
    return (float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
            int(re.search(r"(\d+) requests in", text)[1]))


def hey(url, connections, seconds, per_second=None):
    """The same with hey; per_second: of each connection."""
    argv = ["hey", "-z", f"{seconds}s", "-c", str(connections)]
    argv += ["-q", str(per_second)] if per_second else []
    text = run(argv + [url]).output
    codes = {code: int(count) for code, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", text)}
    if set(codes) != {"200"}:
        raise RuntimeError(f"hey saw other answers than 200: {text[-800:]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), codes["200"]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
