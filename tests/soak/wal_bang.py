#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""N containers on one volume, the replicator on, and everything against them: each has a writer that
inserts (writer, sequence, checksum) and looks, through a connection of its own, whether its last commit is
there; containers are killed (SIGKILL) and stopped (SIGSTOP) at random, and a foreign connection checkpoints
in every mode. In the end no row is lost, none is stale, and a restore from the bucket has the same rows.

  wal_bang.py SECONDS [N]         needs root: it opens the volume from the host

Successor of Warren Young's walbanger.
"""

import http.client
import itertools
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compose"))

from project import Project, compose_flavours  # noqa: E402


def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


class Container:
    def __init__(self, identity):
        self.id = identity
        self.look()

    def look(self):
        """Its address changes with a restart."""
        self.address = docker("inspect", "--format",
                              "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.id).strip()

    def kill_and_start(self):
        docker("kill", "-s", "KILL", self.id)
        docker("start", self.id)
        self.look()

    def stop_for(self, seconds):
        docker("pause", self.id)
        time.sleep(seconds)
        docker("unpause", self.id)


class Writer(threading.Thread):
    """One sequence, through one container; after each 200 it looks for its row in the database."""

    def __init__(self, number, container, database, end):
        super().__init__(daemon=True)
        self.number, self.container, self.database, self.end = number, container, database, end
        self.acked = {}       # row -> text
        self.sent = set()
        self.errors = 0
        self.violations = []

    def text(self, sequence):
        head = f"{self.number}-{sequence}"
        return f"{head}-{zlib.crc32(head.encode()):08x}"

    def check(self, reader, row, text):
        found = reader.execute("SELECT value FROM test WHERE id = ?", (row,)).fetchone()
        if found != (text,):
            self.violations.append(f"row {row}: acknowledged {text!r}, seen {found!r}")

    def run(self):
        reader = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=60,
                                 isolation_level=None)
        connection = None
        for sequence in itertools.count(1):
            if time.monotonic() > self.end or self.violations:
                break
            text = self.text(sequence)
            self.sent.add(text)
            try:
                connection = connection or http.client.HTTPConnection(self.container.address, 8080,
                                                                      timeout=10)
                connection.request("POST", "/", body=text)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    row = int(answer.headers["Harvey-Row"])
                    self.acked[row] = text
                    self.check(reader, row, text)
                    continue
            except (OSError, http.client.HTTPException):
                if connection:
                    connection.close()
                connection = None
            self.errors += 1
            time.sleep(0.05)
        reader.close()


def checkpoints(database, seed, end, done):
    """A stranger with SQLite: it checkpoints, as any tool may."""
    dice = random.Random(seed)
    while time.monotonic() < end:
        connection = sqlite3.connect(database, timeout=0.2, isolation_level=None)
        try:
            connection.execute(
                f"PRAGMA wal_checkpoint({dice.choice(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})")
            done.append(1)
        except sqlite3.OperationalError:
            pass
        connection.close()
        time.sleep(dice.uniform(0, 0.2))


def trouble(containers, seed, end, counts):
    dice = random.Random(seed + 1)
    while time.monotonic() < end - 5:
        time.sleep(dice.uniform(0.5, 2))
        container = dice.choice(containers)
        if dice.random() < 0.6:
            container.kill_and_start()
            counts["SIGKILL"] += 1
        else:
            container.stop_for(dice.uniform(0.1, 2))
            counts["stopped"] += 1


def compare(project, rows, writers):
    """Violations, as texts."""
    found = list(itertools.chain.from_iterable(writer.violations for writer in writers))
    sent = set().union(*(writer.sent for writer in writers))
    by_row = dict(rows)
    if [row for row, _ in rows] != list(range(1, len(rows) + 1)):
        found.append("ids are not 1..n")
    for writer in writers:
        found += [f"lost: row {row} {text!r}, there is {by_row.get(row)!r}"
                  for row, text in writer.acked.items() if by_row.get(row) != text]
        mine = [int(value.split("-")[1]) for _, value in rows
                if value.startswith(f"{writer.number}-")]
        if mine != sorted(set(mine)):
            found.append(f"writer {writer.number}: its sequence is not in order, or has a row twice")
    found += [f"nobody sent {value!r}" for value in by_row.values() if value not in sent]
    project.run("./restore", "--to-latest", "-o", "copy.db")
    restored = sqlite3.connect(f"file:{project.dir / 'copy.db'}?immutable=1", uri=True).execute(
        "SELECT id, value FROM test ORDER BY id").fetchall()
    if restored != rows:
        found.append(f"the restore has {len(restored)} rows and they are not the {len(rows)}")
    return found


def bang(project, seconds, count, seed):
    project.make("up", COMPOSE="wal-bang", WAIT_S="1", ok=False)  # it has no published port to ask
    project.run(*project.compose_cmd.split(), "-f", "compose/wal-bang.yaml", "up", "-d", "--no-build",
                "--scale", f"server={count}")
    label = f"label=com.docker.compose.project={project.name}"
    ids = docker("ps", "-q", "--filter", label, "--filter", "label=harvey.role=server").split()
    assert len(ids) == count, ids
    database = Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}",
                           f"{project.name}_data").strip()) / "state.db"
    containers = [Container(identity) for identity in ids]
    limit = time.monotonic() + 60
    while not database.exists() or database.stat().st_size == 0:
        assert time.monotonic() < limit, "no server has made the database"
        time.sleep(0.1)
    end = time.monotonic() + seconds
    writers = [Writer(n, container, database, end) for n, container in enumerate(containers)]
    counts, done = {"SIGKILL": 0, "stopped": 0}, []
    threads = [*writers, threading.Thread(target=checkpoints, args=(database, seed, end, done)),
               threading.Thread(target=trouble, args=(containers, seed, end, counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    docker("stop", *ids)  # the last one ships all
    rows = sqlite3.connect(database).execute("SELECT id, value FROM test ORDER BY id").fetchall()
    found = compare(project, rows, writers)
    print(f"{count} containers, {seconds} s, seed {seed}: {len(rows)} rows, "
          f"{sum(len(writer.acked) for writer in writers)} acknowledged and seen at once, "
          f"{counts['SIGKILL']} SIGKILL, {counts['stopped']} stopped, {len(done)} foreign checkpoints, "
          f"{sum(writer.errors for writer in writers)} requests failed, {len(found)} violations")
    for text in found[:20]:
        print(text)
    return not found


def main(arguments):
    if not arguments or not all(text.isdigit() for text in arguments) or len(arguments) > 2:
        sys.exit(__doc__)
    seed = int(os.environ.get("HARVEY_SEED") or secrets.randbelow(10**9))
    print(f"HARVEY_SEED={seed}", flush=True)
    flavours = compose_flavours()
    if not flavours:
        sys.exit("wal-bang: no Docker engine with compose answers here")
    count = int(arguments[1]) if len(arguments) == 2 else 8
    with tempfile.TemporaryDirectory(prefix="harvey-bang-") as folder:
        project = Project(Path(folder) / "tree", "compose", flavours[-1], quiet=True)
        try:
            return 0 if bang(project, int(arguments[0]), count, seed) else 1
        finally:
            project.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
