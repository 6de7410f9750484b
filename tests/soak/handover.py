#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The lead goes from one server to the other, N times, under load; every tenth time by kill -9.

  handover.py N

Counted: how long nobody led, generations (a kill inside a freeze may cost a new one: its cause is
printed), forks, rows lost on restore. Violations end it with status 1 and keep everything.
"""

import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from harness import oracle  # noqa: E402
from harness.load import Ledger  # noqa: E402
from soak import scene_of, with_minio  # noqa: E402


def take_over(successor, limit_s=60):
    """Seconds until the other one leads."""
    begin = time.monotonic()
    while time.monotonic() < begin + limit_s:
        if "role=\"leader\"" in successor.log():
            return time.monotonic() - begin
        time.sleep(0.001)
    raise AssertionError(f"{successor.name} did not take the lead within {limit_s} s")


def causes(servers):
    """Why generations began, as the logs say it."""
    return [line for server in servers for line in server.log(whole=True).splitlines()
            if "start  row=" in line]


def follower_is_there(server):
    return server.wait_status(lambda s: s["role"] == "follower" and s["ready"], "a follower")


def main(count, seed, minio):
    """On MinIO where there is one."""
    scene = scene_of("handover", seed, minio)
    archive = scene.archive("minio" if minio else "dir")
    servers = [scene.server(archive, SHIP_INTERVAL_MS=100) for _ in range(2)]
    servers[0].start_ready().wait_leader()
    follower_is_there(servers[1].start())
    ledger = Ledger()
    load = scene.load(servers, ledger, clients=6, pause_s=0.01).start()
    gaps = {"SIGTERM": [], "SIGKILL": []}
    for number in range(count):
        leader, successor = servers[number % 2], servers[1 - number % 2]
        kind = "SIGKILL" if number % 10 == 9 else "SIGTERM"
        begin = time.monotonic()
        leader.signal(getattr(signal, kind))
        take_over(successor)
        gaps[kind].append(1000 * (time.monotonic() - begin))
        code = leader.wait()
        assert code == (0 if kind == "SIGTERM" else -signal.SIGKILL), (code, leader.log()[-2000:])
        ask = successor.status()
        assert ask["role"] == "leader" and ask["lag"]["ms"] is not None, ask
        follower_is_there(leader.start())
        told = [server.status() for server in servers]
        assert told[0]["generation"] == told[1]["generation"], told
        if number % 50 == 49:
            print(f"{number + 1} handovers, {len(ledger.acks)} rows acknowledged", flush=True)
    load.stop()
    for server in servers:
        server.wait_archived()
    stopped = time.monotonic()
    for server in servers:
        server.stop_clean()
    source = scene.source()
    rows = oracle.read_rows(scene.restore_aside(archive).expect(0).target)
    verdict = oracle.compare(rows, source, ledger, stopped, "end")
    generations = archive.generation_ids()
    for kind, values in gaps.items():
        values.sort()
        if values:
            print(f"{kind}: {len(values)} times, lead free for p50 {values[len(values) // 2]:.0f} ms, "
                  f"max {values[-1]:.0f} ms")
    print(f"{count} handovers, seed {seed}: {verdict.acknowledged} rows acknowledged, "
          f"{verdict.lost} lost, {len(generations)} generation(s), "
          f"{len(rows)} restored of {len(source)}")
    if len(generations) > 1:
        print("\n".join(causes(servers)))
    assert verdict.lost == 0 and len(rows) == len(source)
    assert len(generations) <= 1 + len(gaps["SIGKILL"]), generations
    scene.end()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    with_minio(lambda seed, minio: main(int(sys.argv[1]), seed, minio))
