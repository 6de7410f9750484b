# SPDX-License-Identifier: Apache-2.0
"""An archive without a server, laid out by harness/forge.py from a real database's story, and restores from it."""

import os
import random
import shutil
import sqlite3

from . import env
from .archive import DirectoryArchive
from .forge import BASE_UNIX_MS, Forge, Story, cut_at_commits, point_of
from .restoring import run_restore


def lively(story, rng, commits, wals=1, sizes=(10, 3000)):
    """Inserts, updates, deletes, small and large transactions."""
    per_wal = max(1, commits // wals)
    for number in range(commits):
        if number and number % per_wal == 0 and number // per_wal < wals:
            story.reset()
        statements = []
        for _ in range(rng.choice((1, 1, 1, 5, 30))):
            what = rng.random()
            if what < 0.7:
                statements.append(("INSERT INTO test(value) VALUES(?)",
                                   (rng.randbytes(rng.randint(*sizes)),)))
            elif what < 0.85:
                statements.append(("UPDATE test SET value=? WHERE id % 7=?",
                                   (rng.randbytes(40), rng.randrange(7))))
            else:
                statements.append(("DELETE FROM test WHERE id % 5=?", (rng.randrange(5),)))
        story.run(*statements, pass_ms=rng.choice((1, 5, 100, 2000)))
    return story


class Stage:
    """One story in one archive, and restores from it."""

    def __init__(self, scene):
        self.scene = scene
        self.archive = DirectoryArchive(scene.path("archive"))
        self.archive.path.mkdir()
        self.forge = Forge(self.archive)

    def story(self, **options):
        return Story(self.scene.path("story"), **options)

    def run(self, *options, target=None, **settings):
        if target is None:
            folder = self.scene.path("out")
            folder.mkdir()
            target = folder / "r.db"
        return run_restore(self.archive, target, *options, **settings)

    def gives(self, commit, *options):
        """This restore succeeds and gives exactly that commit."""
        result = self.run(*options).expect(0)
        assert result.positions()[0][1:] == commit.position, (commit.position, result.describe())
        assert result.target.read_bytes() == commit.data, f"{commit.position}: other bytes"
        assert result.left_behind() == [result.target.name, f"{result.target.name}-harvey/restored.json"]
        return result

    def refuses(self, code, *options, words=()):
        result = self.run(*options)
        assert result.code == code, result.describe()
        assert not result.left_behind(), result.left_behind()
        assert len(result.stderr.splitlines()) == 1, result.describe()
        for word in words:
            assert word.lower() in result.stderr.lower(), (word, result.describe())
        return result


def as_somebody_else(stage):
    """What begins the command line of a restore by a user who is not root, and to whom the tests' folder
    is open."""
    prefix = []
    if os.geteuid() == 0:
        prefix = [env.tool("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
        if any(not parent.stat().st_mode & 0o001
               for parent in [*stage.scene.dir.parents][2:]) or \
                not os.access(env.program("restore"), os.X_OK):
            env.cannot_run("another user cannot reach the programs or the tests' folder")
        for parent in [stage.scene.dir, stage.scene.dir.parent]:
            parent.chmod(0o755)
    binary = stage.scene.path("restore")
    shutil.copy(env.program("restore"), binary)
    return [*prefix, binary]


def simple(stage, commits=12, wals=2, seed=7, cuts=None, snapshot_at=0, **options):
    """A story, all shipped, one snapshot. Gives (story, generation)."""
    story = lively(stage.story(**options), random.Random(seed), commits, wals).end()
    generation = stage.forge.generation(page_size=story.page_size)
    generation.claim(1, "11111111")
    generation.ship(story, cuts or cut_at_commits())
    base = story.commits[snapshot_at]
    generation.snapshot(base.data, point_of(story, base), base.unix_ms)
    return story, generation


def big(stage):
    """Takes long enough to be interrupted."""
    generation = stage.forge.generation()
    path = stage.scene.path("big")
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE test(id INTEGER PRIMARY KEY, value)")
    db.execute("CREATE INDEX by_value ON test(value)")
    db.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<60000) "
               "INSERT INTO test(value) SELECT hex(randomblob(100)) FROM n")
    db.commit()
    db.close()
    generation.snapshot(path.read_bytes(), ((1, 0), (0, 0)), BASE_UNIX_MS, part_bytes=1 << 18)
    return path.read_bytes()
