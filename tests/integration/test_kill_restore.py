# SPDX-License-Identifier: Apache-2.0
"""Goal: the main promise. Whatever moment the server dies at and the disk with it, what the status
promised is restored, and what is restored is a prefix of what was committed.

Method: under load, `kill -9` at a random moment (also inside the start and the first snapshot); the
volume as it lay there is kept aside as the commit order; then it is wiped, restored and compared:
  - every acknowledged row is in the volume that the kill left,
  - restored rows = a prefix of those rows, ids without a hole, values as acknowledged,
  - every row acknowledged before (send time of any answered status - its lag.ms) is there.
The archive goes on through the rounds, so lives follow each other; now and then the server is only
killed and started again, and now and then all begins anew. HARVEY_KILL_ROUNDS (default 50) rounds,
half on MinIO and half on a directory; HARVEY_SEED repeats a run's choices.
"""

import os
import time

import pytest

from harness import oracle
from harness.env import is_slow_build
from harness.load import Ledger
from harness.restoring import start_restore
from harness.wait import until

ROUNDS = int(os.environ.get("HARVEY_KILL_ROUNDS", "10" if is_slow_build() else "50"))
SHIP_INTERVALS_MS = (0, 10, 50, 200, 1000)


class Story:
    """Rounds on one archive after another."""

    def __init__(self, scene, kind):
        self.scene, self.kind = scene, kind
        self.begin()
        self.promised = self.lost = self.acknowledged = 0

    def begin(self):
        self.archive = self.scene.archive(self.kind)
        self.scene.wipe()
        self.base = []

    def round(self, number):
        scene, random = self.scene, self.scene.random
        if number and random.random() < 0.12:
            self.begin()
        interval_ms = random.choice(SHIP_INTERVALS_MS)
        ledger = Ledger()
        server = scene.server(self.archive, SHIP_INTERVAL_MS=interval_ms)
        lives = 1 + (random.random() < 0.35)
        promise = None
        for life in range(lives):
            server.start()
            load = scene.load(server, ledger, clients=random.choice((1, 4, 8)),
                              pause_s=random.choice((0.0, 0.002, 0.01))).start()
            sampler = scene.sampler(server)
            if random.random() < 0.2:  # somewhere in the start or the first snapshot
                pause_s = random.uniform(0.0, 0.25)
            else:
                load.wait_acks(1)
                pause_s = random.uniform(0.0, 1.2)
            time.sleep(pause_s)  # the random moment itself
            server.check_alive()
            server.kill()
            load.stop()
            sampler.stop()
            promise = max(promise or 0, sampler.promised_before() or 0) or None
        what = (f"{self.kind} round {number}: interval {interval_ms} ms, {lives} lives, "
                f"last status {sampler.last}")
        source = scene.source()
        assert source[:len(self.base)] == self.base, f"{what}: rows of the life before are gone"
        scene.wipe()
        result = scene.restore(self.archive)
        if result.code == 3 and not self.base:  # died before the first snapshot was there
            assert not ledger.acked_before(promise), f"{what}: promised, and nothing to restore"
            restored = []
        else:
            result.expect(0)
            restored = oracle.read_rows(scene.database)
        verdict = oracle.compare(restored, source, ledger, promise, what)
        oracle.check_values(restored, [ledger], base={value for _, value in self.base})
        self.base = restored
        self.promised += verdict.promised
        self.lost += verdict.lost
        self.acknowledged += verdict.acknowledged


@pytest.mark.parametrize("kind", ["dir", "minio"])
def test_kill_restore__keeps_what_status_promised(scene, kind):
    story = Story(scene, kind)
    for number in range((ROUNDS + 1) // 2):
        story.round(number)
    print(f"{kind}: {number + 1} rounds, {story.acknowledged} acknowledged, {story.promised} "
          f"promised, {story.lost} lost beyond the promise")
    assert story.promised > 0, "no status ever promised anything: the test showed nothing"


def test_kill_restore__clean_stop_loses_nothing(scene, archive):
    """SIGTERM under load with the store reachable: every acknowledged row is restored, the restored
    database equals the source page for page, and nobody saw a broken connection."""
    ledger = Ledger()
    for _ in range(2):
        server = scene.server(archive, SHIP_INTERVAL_MS=scene.random.choice(SHIP_INTERVALS_MS))
        server.start_ready()
        load = scene.load(server, ledger).start()
        load.wait_acks(300)
        server.stop_clean()
        load.stop()
    source = scene.source_copy()
    scene.wipe()
    result = scene.restore(archive).expect(0)
    oracle.compare(oracle.read_rows(scene.database), oracle.read_rows(source), ledger,
                   time.monotonic(), "clean stop")
    oracle.compare_databases(scene.database, source)
    assert result.positions(), result.describe()


def test_kill_restore__restore_killed_and_run_again(scene, archive):
    """A restore that dies half-way leaves no database behind, and is not in the way of the next."""
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 400, payload_bytes=900)
    server.wait_archived()
    server.stop_clean()
    scene.wipe()
    finished = 0
    for _ in range(12):
        process = start_restore(scene, archive, scene.database)
        time.sleep(scene.random.uniform(0.0, 0.15))  # the random moment itself
        process.kill()
        if scene.database.exists():  # it was through: then it must be whole
            finished += 1
            assert len(oracle.read_rows(scene.database)) >= len(ledger.acks)
            scene.wipe()
    scene.restore(archive).expect(0)
    verdict = oracle.compare(oracle.read_rows(scene.database), None, ledger, time.monotonic())
    assert verdict.lost == 0
    leftovers = [path.name for path in scene.volume.iterdir()
                 if path.name not in ("state.db", "state.db-harvey")]
    print(f"{finished} of 12 were through before the kill; beside the database now: {leftovers}")
    assert not leftovers, "temporary files of killed restores stay for ever"
    until(lambda: scene.server(archive).start_ready(), "a start on it")
