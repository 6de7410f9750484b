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
_SCANS_MAX = 10  # of /proc, until one meets no process that ends meanwhile


def _pids():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _scan():
    """({pid: (parent, CPU seconds with that of reaped children)} without kernel threads, whole?)"""
    found, pids = {}, _pids()
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parent = int(fields[1])
        if pid != 2 and parent != 2:
            found[pid] = (parent, sum(int(field) for field in fields[11:15]) * TICK_S)
    return found, set(pids) <= set(_pids())


def _is_ours(pid, processes):
    while pid in processes:
        if pid == os.getpid():
            return True
        pid = processes[pid][0]
    return False


def _strangers_cpu_s():
    """Of all processes together, except ours, since the machine's start."""
    for _ in range(_SCANS_MAX):
        processes, whole = _scan()
        if whole:
            break
    return sum(cpu for pid, (_, cpu) in processes.items() if not _is_ours(pid, processes))


class Strangers:
    """with Strangers() as s: ...; then s.cores is what others took, and s.seconds how long it was.

    Sums alone are compared: the CPU of a process that ends goes to whoever waits for it, so it is in
    the sum before and after, and no process has to be followed."""

    def __enter__(self):
        self._before = _strangers_cpu_s()
        self._start = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self._start
        self.cores = max(0.0, _strangers_cpu_s() - self._before) / max(self.seconds, 0.001)


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


# ---- load: (requests, seconds) ----
def wrk(url, connections, seconds):
    """Whole seconds only."""
    text = run(["wrk", "-t1", f"-c{connections}", f"-d{max(1, int(seconds))}s", url]).output
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"wrk saw errors: {text}")
    requests = int(re.search(r"(\d+) requests in", text)[1])
    return requests, requests / float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


def hey(url, connections, seconds, per_second=None):
    """per_second: of each connection."""
    argv = ["hey", "-z", f"{seconds}s", "-c", str(connections)]
    argv += ["-q", str(per_second)] if per_second else []
    text = run(argv + [url]).output
    codes = {code: int(count) for code, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", text)}
    if set(codes) != {"200"}:
        raise RuntimeError(f"hey saw other answers than 200: {text[-800:]}")
    requests = codes["200"]
    return requests, requests / float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
