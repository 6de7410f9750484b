# SPDX-License-Identifier: Apache-2.0
"""Goal: whatever the order in which leaders end, nothing is lost, promised wrongly, refused, or begun
without need.

Method: on one volume, again and again: one or two servers of the flavour "hooks", each to die or to be
stopped at a random step (base/failpoint.c, the n-th arrival), under load or idle, with the store there or
away; between them, now and then, another sibling. Where no foreign program touches anything, every start
must go on in the one generation; with `sqlite3` at work on the database (rows, checkpoints, VACUUM), alive
or between two lives, it may begin another one, and is never refused. Every status is a promise; it is held against the archive
as it lies there. HARVEY_STORM_ROUNDS sets how many rounds; HARVEY_SEED repeats the choices.
"""

import os
import re
import time

import pytest

from harness import env, oracle
from harness.foreign import sqlite3
from harness.load import Ledger
from harness.wait import until

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="the hooks flavour is a build of its own")

STEPS = [name for name in re.findall(r'^    "(\w+)",', (env.ROOT / "base" / "failpoint.c").read_text(),
                                     re.M) if not name.startswith("restore_")]


FOREIGN = ["PRAGMA wal_checkpoint(PASSIVE);", "PRAGMA wal_checkpoint(TRUNCATE);", "VACUUM;",
           "PRAGMA wal_checkpoint(RESTART);", "INSERT INTO test(value) VALUES('foreign');"]


class Storm:
    def __init__(self, scene, archive, foreign=False):
        self.scene, self.archive, self.random = scene, archive, scene.random
        self.foreign = foreign
        self.ledger = Ledger()
        self.promise = None
        self.away = False
        self.told = []
        self.binary = env.hooks_program("server")

    def promised(self, sampler):
        sampler.stop()
        moment = sampler.promised_before()
        if moment is not None:
            self.promise = max(self.promise or moment, moment)

    def server(self):
        step = f"{self.random.choice(STEPS)}:{self.random.choice([1, 1, 1, 2, 3, 8])}"
        self.told.append(step)
        return self.scene.server(self.archive, binary=self.binary, TEST_FAILPOINT=step,
                                 STOP_TIMEOUT_MS=300, SHIP_INTERVAL_MS=10,
                                 SNAPSHOT_INTERVAL_S=self.random.choice([1, 3600]))

    def weather(self):
        """Nobody can be away who has not been there: the first server makes the directory."""
        if (self.archive.kind == "dir" and (self.away or self.archive.path.exists())
                and self.random.random() < 0.35):
            self.archive.mend() if self.away else self.archive.break_off()
            self.away = not self.away
            self.told.append("away" if self.away else "back")

    def foreign_work(self, chance):
        if self.foreign and self.random.random() < chance:
            work = self.random.choice(FOREIGN)
            self.told.append(work)
            sqlite3(self.scene.database, ".timeout 200", work, check=False)

    def round(self):
        servers = [self.server() for _ in range(self.random.choice([1, 1, 2, 3]))]
        samplers = []
        for server in servers:
            server.start()
            samplers.append(self.scene.sampler(server))
        load = self.scene.load(servers, self.ledger, clients=3,
                               pause_s=self.random.choice([0, 0.01])).start()
        want = len(self.ledger.acks) + self.random.choice([0, 5, 100, 600])
        deadline = time.monotonic() + self.random.choice([0.3, 1.5, 4])  # a random moment
        while (time.monotonic() < deadline and len(self.ledger.acks) < want
               and any(server.is_alive() for server in servers)):
            if self.random.random() < 0.02:
                self.weather()
            self.foreign_work(0.03)
            self.check_reasons(servers)
            time.sleep(0.02)
        for server in self.random.sample(servers, len(servers)):
            if server.is_alive():
                server.signal(self.random.choice([9, 15]))
                if self.random.random() < 0.5:
                    server.wait()
        for server in servers:
            code = server.wait()
            assert code in (0, 6, -9, -15), f"{code}\n{server.log()[-4000:]}"
        load.stop()
        for sampler in samplers:
            self.promised(sampler)
        self.foreign_work(0.5)

    def check_reasons(self, servers):
        for server in servers:
            status = server.try_status() if server.is_alive() else None
            said = status["reason"] if status else None
            assert not (said and "not proven" in said), f"{self.told}: {said}\n{server.log()[-3000:]}"

    def disk_gone(self, what):
        """What the archive holds now is a prefix, with all that was promised."""
        if self.away:
            return
        result = self.scene.restore_aside(self.archive)
        if result.code == 3 and not self.archive.complete_snapshots():
            assert not self.ledger.acked_before(self.promise), f"{what}: promised, and not there"
            return
        result.expect(0)
        oracle.compare(oracle.read_rows(result.target), self.scene.source(), self.ledger, self.promise,
                       what)

    def settle(self):
        if self.away:
            self.archive.mend()
            self.away = False
        server = self.scene.server(self.archive).start_ready()
        server.wait_leader()
        self.scene.rows(server, 5, self.ledger)
        server.wait_snapshot()
        server.wait_archived()
        server.stop_clean()
        source = self.scene.source()
        what = " ".join(self.told)
        assert self.scene.restored_rows(self.archive) == source, what
        assert oracle.compare(source, source, self.ledger, time.monotonic(), what).lost == 0
        return len(self.archive.generations())


@pytest.mark.parametrize("kind", ["dir", pytest.param("minio", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pages", ["small", pytest.param("large", marks=pytest.mark.slow)])
@pytest.mark.parametrize("foreign", [False, pytest.param(True, marks=pytest.mark.slow)],
                         ids=["alone", "foreign"])
def test_successor_storm(scene, kind, pages, foreign):
    storm = Storm(scene, scene.archive(kind), foreign)
    if pages == "large":
        sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;",
                "CREATE TABLE other(x);")
    rounds = int(os.environ.get("HARVEY_STORM_ROUNDS", "3"))
    births = 1
    for number in range(rounds):
        storm.round()
        storm.disk_gone(f"round {number}: {' '.join(storm.told)}")
        if number % 5 == 4 or number == rounds - 1:
            begun = storm.settle()
            assert begun == births or foreign, f"a generation that need not be: {' '.join(storm.told)}"
    print(f"{len(storm.ledger.acks)} rows acknowledged, {storm.told}")
