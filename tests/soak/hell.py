#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two servers behind the door under load, and one of these to either of them, at random: SIGTERM and a new
one, SIGTERM twice, SIGKILL, SIGSTOP for a while.

  hell.py SECONDS

A client that never retries counts. A request may fail only if it was in flight in a process that was
killed, or cut short by a second SIGTERM: at most one for each connection that it held in that moment. No
200 may lack its row, and a restore has them all.
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

RATE = 1000


def hurt(scene, server, port, counts):
    """One of the four; how many requests that may cost."""
    kind = scene.random.choice(["SIGTERM", "SIGTERM twice", "SIGKILL", "SIGSTOP"])
    counts[kind] = counts.get(kind, 0) + 1
    if kind == "SIGSTOP":
        server.freeze()
        time.sleep(scene.random.uniform(0.05, 1))
        server.thaw()
        return 0
    cost = 0
    if kind == "SIGKILL":
        server.freeze()  # so that what is counted is what is killed
        cost = server.connections(port)
        server.kill()
    else:
        server.signal(signal.SIGTERM)
        if kind == "SIGTERM twice":
            time.sleep(scene.random.uniform(0, 0.02))
            cost = server.connections(port) if server.is_alive() else 0
            if server.is_alive():
                server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log()[-2000:]
    wait_joined(server.start())
    return cost


def main(seconds, seed, minio):
    scene = scene_of("hell", seed, minio)
    archive = scene.archive("minio" if minio else "dir")
    door = scene.also_end(Door(scene.dir)).start()
    servers = [wait_joined(behind(door, scene.server(archive, SHIP_INTERVAL_MS=100)).start())
               for _ in range(2)]
    client = subprocess.Popen(
        [env.program("openloop"), "--host", "127.0.0.1", "--port", str(door.port), "--method", "POST",
         "--body", "x", "--rate", str(RATE), "--seconds", str(seconds + 60), "--timeout-ms", "20000",
         "--rows-from-status", "--json"], stdout=subprocess.PIPE, text=True)
    counts, may_fail = {}, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(scene.random.uniform(0.1, 0.7))
        may_fail += hurt(scene, scene.random.choice(servers), door.port, counts)
    client.send_signal(signal.SIGINT)
    report = json.loads(client.communicate()[0])
    for server in servers:
        server.stop_clean()
    source = scene.source()
    restored = oracle.read_rows(scene.restore_aside(archive).expect(0).target)
    print(f"{seconds} s, seed {seed}, {counts}: {report['sent']} requests, {report['failed']} failed "
          f"({ {k: v for k, v in report['failed_by'].items() if v} }), {may_fail} connections were held by "
          f"what was killed; {len(source)} rows, {len(restored)} restored, max "
          f"{report['all_us']['max'] / 1000:.0f} ms")
    assert report["failed"] <= may_fail, "more failed than was in flight in killed processes"
    assert len(source) >= report["status_200"] and restored == source
    assert len(source) - report["status_200"] <= report["failed"]
    scene.end()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    with_minio(lambda seed, minio: main(int(sys.argv[1]), seed, minio))
