# SPDX-License-Identifier: Apache-2.0
"""Goal: a host whose calls fail costs no acknowledged row and no promise, and never a wrong database.

Method: LD_PRELOAD (host_faults.c) fails the N-th call of a kind, once or from then on, within the whole
life of a server (start on an empty volume, first snapshot, rows, checkpoint and freeze, stop) and of a
restore; what must hold after each is in harness/host_walks.py. By default each kind is failed at a few
N, other ones in each run; the walks are `slow`: HARVEY_WALK_LIVES (default 8) of each kind, error and
duration, spread evenly over all N; more than there are take each N.
"""

import os

import pytest

from harness import env
from harness.foreign import sqlite3
from harness.host_walks import CALLS, RestoreWalk, ServerWalk, numbers

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="a preload does not go with a sanitizer")

LIVES = int(os.environ.get("HARVEY_WALK_LIVES", "8"))


class Walk:
    """Lives over N, errors, once and for good; all that went wrong is told at the end."""

    def __init__(self, scene, lives, call):
        self.scene, self.lives, self.call = scene, lives, call
        self.failed = []

    def all(self, **more):
        for error in CALLS[self.call][1]:
            for for_good in (False, True):
                self.lives.life(self.call, error, 0, **more)
                arrivals = self.lives.arrivals
                for first in numbers(arrivals, LIVES, self.scene.random):
                    self.one(error, first, for_good, **more)
                print(f"{self.call} {error} {'for good' if for_good else 'once'}: {arrivals} arrivals; "
                      f"{self.lives.told()}, {len(self.failed)} wrong", flush=True)

    def one(self, error, first, for_good, **more):
        try:
            self.lives.life(self.call, error, first, for_good, **more)
        except AssertionError as wrong:
            self.failed.append(str(wrong))
            print(f"WRONG {wrong}", flush=True)

    def check(self):
        assert not self.failed, f"{len(self.failed)} went wrong; the first: {self.failed[0]}"


# ---- restores ----
def few_restores(scene):
    """A walk over restores of a small archive."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 30, payload_bytes=600)
    server.wait_snapshot()
    server.wait_archived()
    scene.rows(server, 10)
    server.wait_archived()
    server.stop_clean()
    return RestoreWalk(scene, archive, scene.source_copy())


@pytest.fixture
def restores(scene):
    """A walk over restores of an archive of two WALs; the file that each must give."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;",
            "CREATE TABLE other(x);")
    server = scene.server(archive).start_ready()
    scene.rows(server, 330, clients=1, payload_bytes=600, pause_s=0.0)  # a frame of 64 KiB each
    server.wait_status(lambda status: status["counters"]["wal_resets"] > 0, "a WAL reset")
    scene.rows(server, 20)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    return RestoreWalk(scene, archive, scene.source_copy())


def old_database(scene):
    path = scene.path("old")
    sqlite3(path, "CREATE TABLE test(id INTEGER PRIMARY KEY, value TEXT);",
            "INSERT INTO test(value) VALUES('old');")
    return path


# ---- a few of them, in every run ----
# A life of a server has at least so many arrivals of the kind, half the number seen
LEAST = {"open": 45, "names": 45, "look": 90, "read": 35, "write": 35, "sync": 30, "grow": 2, "map": 1,
         "lock": 45, "unlock": 45, "memory": 6000, "thread": 6, "descriptor": 10}


@pytest.mark.parametrize("call", CALLS)
def test_host_calls__a_server_now_and_then(scene, call):
    lives = ServerWalk(scene, rows=10)
    error = scene.random.choice(CALLS[call][1])
    first, for_good = scene.random.randint(1, LEAST[call]), scene.random.random() < 0.5
    print(f"{call}: {error} from {first}{' on' if for_good else ''}")
    assert lives.life(call, error, first, for_good), "the life met no fault: LEAST is wrong"


def test_host_calls__a_restore_now_and_then(scene):
    restores = few_restores(scene)
    for call in ("open", "sync", *scene.random.sample(list(CALLS), 3)):
        errors = CALLS[call][1]
        restores.life(call, errors[0], 0)
        for _ in range(4 if restores.arrivals else 0):
            restores.life(call, scene.random.choice(errors),
                          scene.random.randint(1, restores.arrivals), scene.random.random() < 0.5)
    print(restores.told())
    assert restores.met >= 8


# ---- whole walks ----
@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True], ids=["first", "large"])
@pytest.mark.parametrize("call", CALLS)
def test_host_calls__server(scene, call, large):
    walk = Walk(scene, ServerWalk(scene, rows=330 if large else 30, large=large), call)
    walk.all()
    walk.check()


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_host_calls__restore(scene, restores, call):
    walk = Walk(scene, restores, call)
    walk.all()
    restores.options = ("--to-latest", "--replace")
    walk.all(old=old_database(scene))
    walk.check()
