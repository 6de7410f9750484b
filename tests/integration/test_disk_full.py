# SPDX-License-Identifier: Apache-2.0
"""Goal: a full data volume gives clear errors, loses nothing that was acknowledged, and the server
recovers by itself when there is room again.

Method: the volume is a small tmpfs, filled up with a ballast file at several points: before the
start, under load, during an outage of the store (the spool grows), during a snapshot, at a restore.
Needs root for the mount.
"""

import os
import subprocess
import time

import pytest

from harness import env, oracle
from harness.load import Ledger
from harness.restoring import run_restore
from harness.wait import until

pytestmark = [pytest.mark.slow, pytest.mark.root]


@pytest.fixture
def small(scene):
    """scene.volume on a filesystem of 144 MB."""
    if os.geteuid() != 0:
        env.cannot_run("mounting a small filesystem needs root")
    mount, umount = env.tool("mount"), env.tool("umount")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=144m", "tmpfs", scene.volume],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        env.cannot_run(f"no small filesystem here: {done.stderr.strip()}")
    scene.filesystem_settings = lambda: {"HARVEY_UNSAFE_FS": "1"}
    yield scene
    scene.end()
    subprocess.run([umount, "-l", scene.volume], check=True)


def fill(scene, leave_bytes=0):
    """A ballast file takes what is free, but for leave_bytes."""
    ballast = scene.volume / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        piece = bytes(1 << 16)
        while free(scene) > leave_bytes:
            try:
                file.write(piece[:max(1, min(len(piece), free(scene) - leave_bytes))])
            except OSError:
                break
    return ballast


def free(scene):
    stat = os.statvfs(scene.volume)
    return stat.f_bavail * stat.f_frsize


def test_disk_full__under_load(small, archive):
    """No room for the -wal: 5xx, said; after room was made all goes on. Several times, at several
    levels."""
    scene = small
    server = scene.server(archive).start_ready()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=4, payload_bytes=900, pause_s=0.0).start()
    for leave in (0, 4096, 65536, 400000, 1500000):
        load.wait_acks(50)
        ballast = fill(scene, leave)
        count = len(ledger.errors)
        until(lambda: len(ledger.errors) > count + 5 or free(scene) > 0 and leave > 1000000,
              "the full disk to show")
        server.check_alive()
        ballast.unlink()
        load.wait_acks(50, limit_s=120)
    load.stop()
    wrong = [error for _, error in ledger.errors if not error.startswith("5")]
    assert not wrong, f"an error is never a dropped connection: {wrong[:3]}"
    server.wait_archived()
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_disk_full__killed_while_full(small):
    """Full, killed, started while still full, room made: recovers alone, every row there."""
    scene = small
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = Ledger()
    server.wait_snapshot()
    for _ in range(4):
        load = scene.load(server, ledger, clients=4, payload_bytes=900).start()
        load.wait_acks(30)
        ballast = fill(scene, scene.random.choice((0, 4096, 50000)))
        count = len(ledger.errors)
        until(lambda: len(ledger.errors) > count or not server.is_alive(), "the full disk to show")
        server.kill()
        load.stop()
        server.start()
        pause_s = scene.random.uniform(0.2, 1.0)
        time.sleep(pause_s)  # it tries to start on a full disk
        code = server.child.poll()
        assert code in (None, 7), f"exit {code} on a full disk:\n{server.log()[-2000:]}"
        ballast.unlink()
        if code is not None:
            server.start()
        server.wait_ready()
    scene.rows(server, 20, ledger)
    server.wait_archived()
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_disk_full__spool_during_an_outage(small):
    """The store is away and the spool fills the disk: seen in the status; when the store is back
    and room was made, nothing acknowledged is lost."""
    scene = small
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = scene.rows(server, 30)
    server.wait_archived()
    archive.break_off()
    load = scene.load(server, ledger, clients=4, payload_bytes=1000, pause_s=0.0).start()
    until(lambda: free(scene) < 1000000 or len(ledger.errors) > 10, "a full disk", limit_s=180)
    count = len(ledger.errors)
    until(lambda: len(ledger.errors) > count + 10 or free(scene) > 500000, "it to show", limit_s=60)
    server.check_alive()
    status = server.status()
    print(f"full: {status['reason']!r} {status['store']} {status['spool']}")
    load.stop()
    archive.mend()
    server.wait_archived(limit_s=120)
    scene.rows(server, 20, ledger)
    server.wait_archived()
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_disk_full__at_the_restore(small):
    """Exit 7, the temporary file is gone, and with room again it goes through."""
    scene = small
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 800, payload_bytes=1000)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    subprocess.run(["find", str(scene.volume), "-mindepth", "1", "-delete"], check=True)
    for leave in (0, 8192, 100000, 500000):
        ballast = fill(scene, leave)
        result = run_restore(archive, scene.database).expect(7)
        assert not result.left_behind(), result.left_behind()
        assert "space" in result.text.lower(), result.describe()
        ballast.unlink()
    run_restore(archive, scene.database).expect(0)
    rows = oracle.read_rows(scene.database)
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0
