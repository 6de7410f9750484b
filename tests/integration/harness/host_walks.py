# SPDX-License-Identifier: Apache-2.0
"""Walks: the N-th call of a kind fails, within the whole life of a server or of a restore, for N = 1, 2, 3 …
until a life meets no fault any more. What must hold after each stands in the assertions here.
"""

import http.client
import shutil
import subprocess
import time

from . import oracle
from .foreign import sqlite3
from .host import Faults
from .load import Ack, Ledger
from .process import clean_environment
from .restoring import Restored, restore_argv
from .server import GONE, position_of
from .wait import Waited, until

# kinds that fail together, with the errors that the kernel gives for them
CALLS = {
    "open": (("open",), ("EIO", "EMFILE", "ENOSPC", "EROFS", "EACCES")),
    "names": (("mkdir", "rename", "unlink"), ("EIO", "ENOSPC", "EROFS")),
    "look": (("list", "stat"), ("EIO", "ENOMEM")),
    "read": (("read",), ("EIO",)),
    "write": (("write",), ("EIO", "ENOSPC", "EDQUOT")),
    "sync": (("sync",), ("EIO", "ENOSPC")),
    "grow": (("grow",), ("EIO", "ENOSPC")),
    "map": (("map",), ("ENOMEM",)),
    "lock": (("lock",), ("ENOLCK",)),
    "unlock": (("unlock",), ("ENOLCK",)),
    "memory": (("memory",), ("ENOMEM",)),
    "thread": (("thread",), ("EAGAIN",)),
    "descriptor": (("descriptor",), ("EMFILE",)),
}
SERVER_EXITS = (1, 2, 6, 7)  # docs/configuration.md, but for 0
RESTORE_EXITS = (1, 2, 3, 4, 5, 6, 7)
SPINNING = 3000  # failed calls in HOLD_S: a pause of any kind stays far below
HOLD_S = 0.5
ANSWER_S = 10
ANSWER_LOCKLESS_S = 120  # an open, a BEGIN, another one: 10 s each


def _is_ready(server):
    reply = server.readyz()
    return reply is not None and reply.code == 200


class ServerWalk:
    """Lives of a server on an empty volume (`large`: beside a database of 64 KiB pages, where some hundred
    rows meet checkpoints and a freeze) with a directory archive."""

    def __init__(self, scene, rows=30, large=False):
        self.scene, self.count, self.large = scene, rows, large
        self.lives = self.met = self.refused = self.generations = 0

    def life(self, call, error, first, for_good=False):
        """One life; True where it met the fault. first=0: only counts arrivals, kept in self.arrivals."""
        scene = self.scene
        scene.wipe()
        self.archive = scene.archive("dir")
        self.what = f"{call}:{error} from {first}{' on' if for_good else ''}"
        self.ledger = Ledger()
        if self.large:
            sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;",
                    "CREATE TABLE other(x);")
        self.faults = Faults(scene, scene.volume, self.archive.path)
        kinds = CALLS[call][0]
        self.faults.order(kinds, error, first, for_good)
        # without locks SQLite stands still for 10 s in each call, in the http thread's too
        self.local_only = call not in ("memory", "descriptor", "thread", "lock")
        self.lockless = call == "lock" and for_good
        live = self._live_locked if call == "unlock" else self._live
        server = self.faults.on(scene.server(self.archive, name=f"life-{self.lives}"))
        try:
            live(server, for_good)
            self.lives += 1
            self.met += self.faults.failed() > 0
            self.arrivals = self.faults.arrived()
            self._again()
        except AssertionError as failed:
            raise AssertionError(f"{self.what}: {failed}\nthe fault: {self.faults.failed()} times, last "
                                 f"{self.faults.where()}; the server's log:\n{server.log()[-3000:]}"
                                 ) from failed
        finally:
            server.kill()
            server.port.close()
        shutil.rmtree(self.archive.path)
        return self.faults.failed() > 0

    def told(self):
        return f"{self.lives} lives, {self.met} met a fault, {self.refused} starts refused"

    # ---- the life with the fault ----
    def _live(self, server, for_good):
        self.promise = None
        server.start()
        if not self._started(server):
            return
        sampler = self.scene.sampler(server)
        try:
            self._rows(server, self.count, to_refusal=self.lockless)
            self._recovers(server, for_good)
            self._rows(server, 3)
        finally:
            sampler.stop()
        self.promise = sampler.promised_before()
        code = server.stop()
        assert code == 0, f"{self.what}: the stop ended with {code}"

    def _live_locked(self, server, _for_good):
        """SQLite looks at no unlock's result, and a lock that stays does so until its process ends: rows
        may be refused from then on, and the server may end itself. A kill ends what is left of it."""
        self.promise = None
        server.start()
        sampler = self.scene.sampler(server)
        try:
            until(lambda: not server.is_alive() or self.faults.failed() > 0 or _is_ready(server),
                  f"{self.what}: a start")
            self._rows(server, self.count, to_refusal=True, may_end=True)
            until(lambda: not server.is_alive() or self.faults.failed() > 0
                  or (server.try_status() or {}).get("snapshot"), f"{self.what}: a snapshot")
        finally:
            sampler.stop()
        self.promise = sampler.promised_before()
        server.kill()

    def _started(self, server):
        """Until it is ready; False where it ended with a word. What holds it up for good is cleared after
        a look at how it waits."""
        def look():
            if not server.is_alive():
                return "ended"
            reply = server.readyz()
            if reply is not None and reply.code == 200:
                return "ready"
            answers = reply is not None or not self.local_only  # short of all, it may not even answer
            return "held up" if self.faults.failed() > 2 and answers else None
        how = until(look, f"{self.what}: a start")
        if how == "held up":
            self._calm()
            self.faults.clear()
            how = until(lambda: "ended" if not server.is_alive() else _is_ready(server) and "ready",
                        f"{self.what}: the start to go on after the fault; status "
                        f"{server.try_status()}")
        if how == "ended":
            code = server.wait()
            told = [line for line in server.log().splitlines() if line.startswith("server: ")]
            assert code in SERVER_EXITS and told and len(told[-1]) > 20, (
                f"{self.what}: ended with {code} and said {told}")
            self.refused += 1
            return False
        return True

    def _calm(self):
        before = self.faults.failed()
        time.sleep(HOLD_S)
        count = self.faults.failed() - before
        assert count < SPINNING, f"{self.what}: {count} failed calls in {HOLD_S} s: it spins"

    def _held(self, server):
        """The fault stays for a while: no spinning, and what is promised meanwhile is in the archive."""
        self._calm()
        self._rows(server, 5, to_refusal=self.lockless)
        self._calm()
        server.check_alive()
        self.faults.clear()
        self._rows(server, 2)

    def _recovers(self, server, for_good):
        """By itself: ready, everything archived, a snapshot, nothing red."""
        def is_green():
            server.check_alive()
            status = server.try_status()
            return (status and status["ready"] and not status["alarm"] and status["snapshot"]
                    and status["archived"] and status["lag"]["frames"] == 0
                    and position_of(status, "archived") == position_of(status))
        try:
            until(lambda: for_good and self.faults.failed() > 0 or is_green(),
                  f"{self.what}: green again, or a fault that stays")
            if for_good and self.faults.failed() > 0:
                self._held(server)
                until(is_green, f"{self.what}: green again after the fault")
        except Waited as error:
            raise Waited(f"{error}; status {server.try_status()}") from None

    def _rows(self, server, count, to_refusal=False, may_end=False):
        """One after the other; an error is an answer, unless descriptors or memory are short. to_refusal:
        none after the first that is not acknowledged. may_end: the server may end."""
        connection = None
        for _ in range(count):
            number = len(self.ledger.sent)
            payload = self.ledger.payload(0, number)
            try:
                connection = connection or server.connection(
                    ANSWER_LOCKLESS_S if self.lockless else ANSWER_S)
                connection.request("POST", "/", body=payload)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    self.ledger.ack(Ack(0, number, payload, time.monotonic(),
                                        int(answer.headers["Harvey-Row"]), None))
                else:
                    assert answer.status in (500, 503, 507), f"{answer.status} {body!r}"
                    assert len(body) > 5, f"{answer.status} without a word"
                    if to_refusal:
                        break
            except (*GONE, http.client.HTTPException) as error:
                if not may_end:
                    server.check_alive()
                    assert not self.local_only, f"{self.what}: a row met {error!r}, not an answer"
                connection = None
                if to_refusal:
                    break
        if connection:
            connection.close()

    # ---- what came of it ----
    def _again(self):
        """The archive holds what was promised; a start without the fault has every acknowledged row, and
        so has a restore elsewhere."""
        scene = self.scene
        if self.promise and self.ledger.acked_before(self.promise):
            rows = oracle.read_rows(scene.restore_aside(self.archive).expect(0).target)
            oracle.compare(rows, None, self.ledger, self.promise, self.what)
        server = scene.server(self.archive, name=f"again-{self.lives}")
        try:
            server.start_ready()
            self.local_only = True
            self._rows(server, 3)
            assert self.ledger.acks
            server.wait_snapshot()
            server.wait_archived()
            server.stop_clean()
        finally:
            server.kill()
            server.port.close()
        source = scene.source()
        rows = scene.restored_rows(self.archive)
        assert rows == source, f"{self.what}: {len(rows)} restored, {len(source)} in the source"
        verdict = oracle.compare(rows, source, self.ledger, time.monotonic(), self.what)
        assert verdict.lost == 0
        self.generations = max(self.generations, len(self.archive.generations()))


class RestoreWalk:
    """Restores of one archive: whole and equal with exit 0, or nothing at the target and a word."""

    def __init__(self, scene, archive, expected, options=("--to-latest",)):
        self.scene, self.archive, self.options = scene, archive, options
        self.expected = oracle.dump_hash(expected)
        self.lives = self.met = self.through = 0
        self.faults = Faults(scene, scene.dir)  # the archive and the target

    def told(self):
        return f"{self.lives} restores, {self.met} met a fault, {self.through} of them went through"

    def run(self, target, faulty=True):
        argv = restore_argv(target, *self.options)
        more = self.faults.variables() if faulty else {}
        done = subprocess.run(argv, env=clean_environment(**self.archive.environment(), **more),
                              stdin=subprocess.DEVNULL, cwd=target.parent, capture_output=True,
                              text=True, timeout=120, check=False)
        return Restored(argv, done.returncode, done.stdout, done.stderr, target)

    def life(self, call, error, first, for_good=False, old=None):
        """One restore; True where it met the fault. `old`: a database that --replace is to move aside."""
        folder = self.scene.path("target")
        folder.mkdir()
        target = folder / "state.db"
        if old:
            target.write_bytes(old.read_bytes())
        what = f"{call}:{error} from {first}{' on' if for_good else ''}"
        self.faults.order(CALLS[call][0], error, first, for_good)
        result = self.run(target)
        self.lives += 1
        self.arrivals = self.faults.arrived()
        met = self.faults.failed() > 0
        self.met += met
        what = f"{what} ({self.faults.where()})"
        if result.code == 0:
            self.through += met
            assert oracle.dump_hash(target) == self.expected, f"{what}: exit 0, and other content"
        else:
            assert result.code in RESTORE_EXITS, f"{what}: {result.describe()}"
            assert len(result.stderr.strip()) > 10, f"{what}: exit {result.code} without a word"
            stuck = for_good and call == "names"  # nothing can be removed: the next restore sweeps it
            self._nothing_there(result, target, old, what, stuck)
        self.faults.clear()
        if result.code != 0:
            again = self.run(target, faulty=False)
            assert again.code == 0, f"{what}, and then again: {again.describe()}"
            assert oracle.dump_hash(target) == self.expected, what
        shutil.rmtree(folder)
        return met

    def _nothing_there(self, result, target, old, what, stuck):
        names = result.left_behind()
        if old:
            databases = [path for path in target.parent.iterdir() if path.is_file()
                         and oracle_or_none(path) == oracle.dump_hash(old)]
            assert databases, f"{what}: the old database is gone: {names}"
            if target.exists():
                assert oracle.dump_hash(target) == oracle.dump_hash(old), what
        else:
            assert not target.exists(), f"{what}: exit {result.code}, and a file at the target"
            assert stuck or not names, f"{what}: exit {result.code}, and left behind {names}"


def oracle_or_none(path):
    try:
        return oracle.dump_hash(path)
    except Exception:  # no database
        return None


def numbers(arrivals, lives, random):
    """The arrivals to fail: about so many, evenly spread."""
    step = max(1, arrivals // lives)
    return range(1 + random.randrange(step), arrivals + 1, step)
