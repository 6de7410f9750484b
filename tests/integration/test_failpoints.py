# SPDX-License-Identifier: Apache-2.0
"""Goal: a server killed exactly at a named step loses no acknowledged row that is on its disk, and
with its disk gone no row that a status had promised. Every step of base/failpoint.c has its turn.

Method: the flavour "hooks" under load kills itself at the step (the n-th time it gets there; n from
the seed); a step that is not reached fails its test. Then, from the same moment:
  - disk gone: the archive as it was is restored elsewhere. What comes back is a prefix of the commit
    order and holds every row acknowledged before (send time of any status - its lag.ms); on a
    directory archive a server then goes on from there, with rows of its own.
  - disk there: a release server starts on the volume, takes more rows, archives all and dies by
    kill -9; what is restored in an empty place is every row, and the ledger lacks none.
The generation goes on. HARVEY_FAILPOINT_ROUNDS (default 1) rounds with other numbers; HARVEY_SEED
repeats a run's; HARVEY_HOOKS_BIN may be a sanitizer's build with hooks.
"""

import json
import os
import re
import time
from collections import namedtuple

import pytest

from harness import env, oracle
from harness.archive import CLAIM
from harness.foreign import sqlite3
from harness.load import Ledger

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="the hooks flavour is a build of its own")

ROUNDS = int(os.environ.get("HARVEY_FAILPOINT_ROUNDS", "1"))

# step: the name; nth: it dies at the first..last arrival there; scene: what lay there before
Case = namedtuple("Case", "step first last before settings")


def case(step, nth=1, before="nothing", **settings):
    first, last = nth if isinstance(nth, tuple) else (nth, nth)
    return Case(step, first, last, before, settings)


CASES = [
    # START: on nothing, after a kill -9 under load, after a restore
    case("start_looked"),
    case("start_looked", before="killed"),
    case("start_shipper_ready"),
    case("start_shipper_ready", before="killed"),
    case("start_compared"),
    case("start_compared", before="killed"),
    case("start_locks_held"),
    case("start_locks_held", before="killed"),
    case("start_locks_held", before="restored"),
    case("start_generation_noted"),
    case("start_generation_noted", before="restored"),
    case("birth_put"),
    case("birth_put", before="restored"),
    case("birth_put", before="restored", TEST_SLOW_START=1),
    case("claim_noted", before="killed"),
    case("claim_put"),
    case("claim_put", before="killed"),
    case("marker_before_delete", before="restored"),
    # STREAM
    case("capture_done", (1, 60)),
    case("spool_written"),
    case("spool_written", (2, 30)),
    case("spool_named"),
    case("spool_named", (2, 30)),
    # CHECKPOINT and FREEZE; the start on an empty WAL leaves mark 0 too: there the first arrival
    case("checkpoint_flagged", (1, 6), before="large pages"),
    case("checkpoint_done", (1, 6), before="large pages"),
    case("freeze_begins", (1, 2), before="large pages"),
    case("freeze_write_held", (1, 2), before="large pages"),
    case("freeze_backfilled", (1, 2), before="large pages"),
    case("freeze_at_mark0", (1, 2), before="large pages"),
    case("freeze_reset_noted"),
    case("freeze_reset_noted", (2, 3), before="large pages"),
    case("freeze_released"),
    case("freeze_released", (2, 3), before="large pages"),
    case("freeze_reset_done"),
    case("freeze_reset_done", (2, 3), before="large pages"),
    # SNAPSHOT: the first of a generation, a later one, one of several parts
    *[case(step, **more)
      for step in ("snapshot_opened", "snapshot_copied", "snapshot_parts_made",
                   "snapshot_before_complete", "snapshot_completed")
      for more in ({}, {"nth": 2, "SNAPSHOT_INTERVAL_S": 1})],
    *[case(step, **more)
      for step in ("snapshot_part_made", "snapshot_part_put")
      for more in ({}, {"nth": (2, 3), "before": "large database"})],
    # UPLOAD
    case("upload_before_put"),
    case("upload_before_put", (2, 40)),
    case("store_file_written", (1, 40)),
    case("upload_after_put"),
    case("upload_after_put", (2, 40)),
    case("spool_before_delete"),
    case("spool_before_delete", (2, 4)),
    # STOP and HANDOVER
    case("stop_last_look", before="a stop"),
    case("stop_looked", before="a stop"),
    case("stop_looked", before="a sibling"),
    # a client at the listening socket
    case("http_clients_wait", before="killed"),
    # HANDOVER
    case("handover_lock_dropped", before="a sibling"),
]
IN_A_RESTORE = ("restore_part_written", "restore_wal_applied", "restore_marker_written",
                "restore_renamed")  # of the program: test_restore_target.py; of the server: below
IN_A_REPLACE = ("restore_moved_aside",)  # test_restore_target.py
ONLY_ON_A_DIRECTORY = ("store_file_written",)


def name_of(one):
    nth = f"{one.first}" if one.first == one.last else f"{one.first}..{one.last}"
    settings = "".join(f"-{key.lower()}" for key in one.settings)
    return f"{one.step}-{nth}-{one.before.replace(' ', '_')}{settings}"


def test_failpoints__each_has_a_test():
    """The list above, the list in base/failpoint.c, and what the sources name are the same."""
    listed = re.findall(r'^    "(\w+)",', (env.ROOT / "base" / "failpoint.c").read_text(), re.M)
    assert len(listed) == len(set(listed))
    tested = {one.step for one in CASES} | set(IN_A_RESTORE + IN_A_REPLACE)
    assert tested == set(listed)
    named = [name for room in ("archive", "replicator", "restorer", "server", "door")
             for path in (env.ROOT / room).glob("*.c")
             for name in re.findall(r'\bFAILPOINT\("(\w+)"\)', path.read_text())]
    assert sorted(named) == sorted(listed), "each stands at one place of the sources"


# ---- what happens before, at and after the step ----
class Story:
    def __init__(self, scene, archive):
        self.scene, self.archive = scene, archive
        self.binary = env.hooks_program("server")
        self.ledger = Ledger()
        self.promise = None  # rows acknowledged before this moment are promised
        self.base = []       # rows of the life before a restore
        self.births_before = 0

    def promised(self, moment):
        if moment is not None:
            self.promise = max(self.promise or moment, moment)

    def before(self, what):
        """Makes what lies there before the server that is to die."""
        scene = self.scene
        if what in ("killed", "restored"):
            server = scene.server(self.archive).start_ready()
            scene.rows(server, 60, self.ledger)
            server.wait_snapshot()
            asked = time.monotonic()
            server.wait_archived()
            self.promised(asked)
            if what == "killed":  # with something in the -wal and the spool that is nowhere else
                load = scene.load(server, self.ledger).start()
                load.wait_acks(40)
                server.kill()
                load.stop()
            else:
                server.stop_clean()
                scene.wipe()
                scene.restore(self.archive).expect(0)
            self.births_before = len(self.archive.generations())
        elif what == "large pages":  # a commit is 64 KiB in the WAL: checkpoints and freezes at once
            sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;",
                    "CREATE TABLE other(x);")
        elif what == "large database":  # a snapshot of three parts
            sqlite3(scene.database, "PRAGMA journal_mode=WAL;", "CREATE TABLE other(x);",
                    "INSERT INTO other WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
                    "FROM n WHERE i < 40) SELECT randomblob(1000000) FROM n;")

    def victim(self, step, nth, **settings):
        """A server that will die there."""
        server = self.scene.server(self.archive, binary=self.binary, **settings)
        environment = server.environment
        self.reached = self.scene.path("reached")
        server.environment = lambda: {**environment(), "HARVEY_TEST_FAILPOINT": f"{step}:{nth}",
                                      "HARVEY_TEST_FAILPOINT_LOG": str(self.reached)}
        return server

    def dies(self, server, step, nth):
        code = server.wait()
        steps = self.reached.read_text().split() if self.reached.exists() else []
        assert code == -9 and step in steps, (
            f"{step} was not reached {nth} times: the server ended with {code} and had reached "
            f"{steps}; its log ends:\n{server.log()[-3000:]}")

    def killed_at(self, one, nth):
        scene = self.scene
        server = self.victim(one.step, nth, **{"SHIP_INTERVAL_MS": 10, **one.settings})
        server.start()
        servers = [server]
        if one.before == "a sibling":
            server.wait_leader()
            servers.append(scene.server(self.archive).start_ready())
        load = scene.load(servers, self.ledger, clients=4, pause_s=0.002).start()
        samplers = [scene.sampler(each) for each in servers]
        if one.before == "a sibling":
            load.wait_acks(60)
            server.signal(15)
        elif one.before == "a stop":
            load.wait_acks(60)
            server.signal(15)
        self.dies(server, one.step, nth)
        if one.before == "a sibling":  # it takes the lead that was dropped, and dies a little later
            servers[1].wait_leader()
            load.wait_acks(60)
            servers[1].kill()
        load.stop()
        for sampler in samplers:
            sampler.stop()
            self.promised(sampler.promised_before())

    def restored(self, result, what):
        """Rows of a restore; none where nothing had been promised and no snapshot was complete."""
        if result.code == 3 and not self.archive.complete_snapshots():
            assert not self.ledger.acked_before(self.promise), f"{what}: promised, and not there"
            return []
        result.expect(0)
        return oracle.read_rows(result.target)

    def disk_gone(self, source, what):
        """From the archive alone."""
        result = self.scene.restore_aside(self.archive)
        rows = self.restored(result, what)
        oracle.compare(rows, source, self.ledger, self.promise, what)
        return rows

    def goes_on_elsewhere(self, archive, rows, what):
        """A server on the restored database, with a copy of the archive as it was at the kill."""
        folder = self.scene.path("elsewhere")
        folder.mkdir()
        database = folder / "state.db"
        if archive.complete_snapshots():
            self.scene.restore(archive, target=database).expect(0)
        server = self.scene.server(archive, database=database).start_ready()
        ledger = self.scene.rows(server, 20)
        server.wait_snapshot()
        server.wait_archived()
        server.stop_clean()
        again = self.scene.restored_rows(archive)
        assert again[:len(rows)] == rows, f"{what}: going on elsewhere lost rows"
        assert oracle.compare(again, None, ledger, time.monotonic(), what).lost == 0

    def disk_there(self, source, what):
        """A start on what the kill left."""
        server = self.scene.server(self.archive).start_ready()
        server.wait_leader()
        self.scene.rows(server, 30, self.ledger)
        server.wait_snapshot()
        status = server.wait_archived()
        server.kill()
        now = self.scene.source()
        assert now[:len(source)] == source, f"{what}: the start changed rows"
        rows = self.scene.restored_rows(self.archive)
        assert rows == now, f"{what}: {len(rows)} rows restored, {len(now)} in the source"
        verdict = oracle.compare(rows, now, self.ledger, time.monotonic(), what)
        assert verdict.lost == 0, what
        oracle.check_values(rows, [self.ledger])
        return server, status


def births(archive):
    return [json.loads(archive.get(key)) for key in archive.generations()]


def check_generations(story, one, status, what):
    """No generation but those that had to be: one for a new database, one more for a restore."""
    found = births(story.archive)
    told = [(birth["generation"], birth["cause"], birth["cause_detail"]) for birth in found]
    want = {"restored": 2}.get(one.before, 1)
    assert len(found) == want, f"{what}: {told}"
    assert found[-1]["generation"] == status["generation"], what
    terms = sorted(match["generation"] for match in map(CLAIM.match, story.archive.keys()) if match)
    print(f"{what}: {told}, {len(terms)} claims")


@pytest.mark.parametrize("kind, one", [
    pytest.param(kind, one, id=f"{kind}-{name_of(one)}") for kind in ("dir", "minio")
    for one in CASES if kind == "dir" or one.step not in ONLY_ON_A_DIRECTORY])
def test_failpoints__killed_there(scene, kind, one):
    for number in range(ROUNDS):
        scene.wipe()
        story = Story(scene, scene.archive(kind))
        nth = scene.random.randint(one.first, one.last)
        story.before(one.before)
        story.killed_at(one, nth)
        what = f"{kind}, {one.step}:{nth}, {one.before}, round {number}"
        source = scene.source()
        at_the_kill = story.archive.copy_to(scene.path("at-the-kill")) if kind == "dir" else None
        rows = story.disk_gone(source, what)
        _, status = story.disk_there(source, what)
        check_generations(story, one, status, what)
        if at_the_kill:
            story.goes_on_elsewhere(at_the_kill, rows, what)


@pytest.mark.parametrize("step", IN_A_RESTORE)
def test_failpoints__killed_in_the_servers_own_restore(scene, archive, step):
    """HARVEY_ON_EMPTY=restore: dies inside it; the next start restores, and nothing is lost."""
    story = Story(scene, archive)
    story.before("restored")  # what it restored is wiped again
    scene.wipe()
    server = story.victim(step, 1, ON_EMPTY="restore").start()
    story.dies(server, step, 1)
    server = scene.server(archive, ON_EMPTY="restore").start_ready()
    server.wait_leader()
    scene.rows(server, 20, story.ledger)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    rows = scene.restored_rows(archive)
    assert rows == scene.source()
    assert oracle.compare(rows, rows, story.ledger, time.monotonic(), step).lost == 0
    assert len(archive.generations()) == 2
    assert not [path.name for path in scene.volume.iterdir() if ".restoring-" in path.name]
