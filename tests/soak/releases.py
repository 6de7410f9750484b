#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""N rolling releases of two servers behind the door (processes of this host), and a million requests by
a client that never retries: each of its three modes, GET and POST.

  releases.py N [REQUESTS]

Not one may fail, each 200 must be a row, and a restore has them all. Slow ones are listed.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from harness import env, oracle  # noqa: E402
from harness.door import Door, behind, wait_joined  # noqa: E402
from soak import scene_of, with_minio  # noqa: E402

RATE = 1500
KINDS = [(mode, method) for mode in ("busy", "idle", "fresh") for method in ("GET", "POST")]


def one_kind(door, servers, mode, method, releases, requests):
    """One client's report over so many releases, spread over its run."""
    client = subprocess.Popen(
        [env.program("openloop"), "--host", "127.0.0.1", "--port", str(door.port), "--mode", mode,
         "--method", method, *(["--body", "x"] if method == "POST" else []), "--rate", str(RATE),
         "--requests", str(requests), "--timeout-ms", "20000", "--rows-from-status", "--json"],
        stdout=subprocess.PIPE, text=True)
    begin = time.monotonic()
    for number in range(releases):
        due = begin + (number + 0.5) * requests / RATE / releases
        time.sleep(max(0, due - time.monotonic()))
        server = servers[number % len(servers)]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log()[-2000:]
        wait_joined(server.start())
    report = json.loads(client.communicate()[0])
    return report


def main(releases, requests, seed, minio):
    scene = scene_of("releases", seed, minio)
    archive = scene.archive("minio" if minio else "dir")
    door = scene.also_end(Door(scene.dir)).start()
    servers = [wait_joined(behind(door, scene.server(archive, SHIP_INTERVAL_MS=100)).start())
               for _ in range(2)]
    total = failed = acknowledged = 0
    for mode, method in KINDS:
        report = one_kind(door, servers, mode, method, -(-releases // len(KINDS)),
                          -(-requests // len(KINDS)))
        total += report["sent"]
        failed += report["failed"]
        acknowledged += report["status_200"]
        us = report["all_us"]
        print(f"{mode} {method}: {report['sent']} requests, {report['failed']} failed, "
              f"{report['reconnects']} reconnects, p99.9 {us['p99_9'] / 1000:.0f} ms, "
              f"p99.99 {us['p99_99'] / 1000:.0f} ms, max {us['max'] / 1000:.0f} ms, "
              f"{report['over_250ms']} over 250 ms, gap {report['gap_us'] / 1000:.0f} ms, "
              f"rows - 200s {report['rows']['minus_200s']}", flush=True)
        assert report["rows"]["minus_200s"] == 0
    for server in servers:
        server.stop_clean()
    source = scene.source()
    restored = oracle.read_rows(scene.restore_aside(archive).expect(0).target)
    print(f"{releases} releases, {total} requests, {failed} failed; {len(source)} rows, "
          f"{acknowledged} acknowledged, {len(restored)} restored")
    assert failed == 0 and restored == source and len(source) == acknowledged
    scene.end()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(text.isdigit() for text in sys.argv[1:]):
        sys.exit(__doc__)
    REQUESTS = int(sys.argv[2]) if len(sys.argv) == 3 else 10**6
    with_minio(lambda seed, minio: main(int(sys.argv[1]), REQUESTS, seed, minio))
