# SPDX-License-Identifier: Apache-2.0
"""Goal: an archive that was damaged gives no wrong database, ever. Either the restore says exit 4,
the last good position and how to get there, with nothing left at the target; or what was damaged
was not needed; or it is the hole near the tail that a crash leaves, and then it is said.

Method: one archive of several generations, snapshots and dozens of objects, made once per kind; a
random object is flipped in one byte, cut short, emptied, removed, doubled under a neighbour's name
or swapped with another; the restore runs; the object is put back. Exit 0 must give a prefix of the
commit order, whole unless it said that something was left out. The command for the last good
position is run as well.
The full matrix: test_damage_matrix.py.
"""

import os
import random
import re
import shutil
import subprocess

import pytest

from harness import env, oracle
from harness.archive import BIRTH, CLAIM, COMPLETE, SEGMENT
from harness.env import is_slow_build
from harness.load import Ledger
from harness.scene import Scene, check_integrity

GENERATION_ID = r"\b[0-9]{8}-[0-9a-f]{16}\b"
TRIALS = int(os.environ.get("HARVEY_DAMAGE_TRIALS", "12" if is_slow_build() else "60"))


class Subject:
    """The archive, its objects as they should be, and the rows that belong to it."""

    def __init__(self, scene, archive):
        self.scene, self.archive = scene, archive
        self.truth = {}  # by generation
        self.make()
        self.objects = {key: archive.get(key) for key in archive.keys()}
        self.rows = scene.restored_rows(archive)
        assert len(self.rows) == self.count, (len(self.rows), self.count)

    def make(self):
        scene, archive = self.scene, self.archive
        self.count = 0
        for life in range(2):
            server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
            server.wait_snapshot()
            ledger = Ledger()
            for _ in range(2):
                scene.rows(server, 60, ledger, clients=2, pause_s=0.01)
                server.kill()
                server.start_ready()
                server.wait_leader()
            server.wait_archived()
            server.stop_clean()
            self.count += len(ledger.acks)
            if life == 0:
                scene.wipe()
                scene.restore(archive).expect(0)

    def segments(self):
        newest = max(key[:25] for key in self.objects if SEGMENT.match(key))
        return [key for key in sorted(self.objects)
                if SEGMENT.match(key) and key.startswith(newest)]

    def run(self, what, *options):
        """Restores from the archive as it is now and judges; gives the result."""
        result = self.scene.restore_aside(self.archive, *(options or ("--to-latest",)))
        if result.code == 0:
            rows = oracle.read_rows(result.target)
            check_integrity(result.target)
            assert rows == self.rows[:len(rows)], f"{what}: a wrong restore\n{result.describe()}"
            if len(rows) < len(self.rows) and not options:
                assert said_left_out(result), (
                    f"{what}: {len(rows)} of {len(self.rows)} rows, exit 0, and not a word "
                    f"about it\n{result.describe()}")
        else:
            assert result.code == 4, f"{what}: exit {result.code}\n{result.describe()}"
            assert not result.left_behind(), f"{what}: left {result.left_behind()}"
        return result

    def put_back(self):
        now = self.archive.keys()
        for key in now:
            if key not in self.objects:
                self.archive.delete(key)
        for key, data in self.objects.items():
            if key not in now or self.archive.get(key) != data:
                self.archive.put(key, data)

    def follow_the_advice(self, what, result):
        """Exit 4 names the last good position and the command to get there: it works."""
        positions = result.positions()
        if "choose with --generation" in result.text:
            self.choose_a_generation(what, result)
            return
        if not positions:
            assert "no good position" in result.text.lower() or "nothing" in result.text.lower(), (
                f"{what}: exit 4 and no word of the last good position\n{result.describe()}")
            return
        assert "--to-position" in result.text, f"{what}: no command\n{result.describe()}"
        advice = result.text.split("--to-position", 1)[1].split()[0].strip("`'\"")
        again = self.scene.restore_aside(self.archive, "--to-position", advice)
        assert again.code == 0, f"{what}: the advice does not work\n{again.describe()}"
        rows = oracle.read_rows(again.target)
        assert rows == self.rows[:len(rows)], f"{what}: the advice gives a wrong restore"

    def choose_a_generation(self, what, result):
        """A birth that cannot be read: exit 4 names those that can, and each of them restores."""
        named = re.findall(GENERATION_ID, result.text.split("readable are", 1)[-1])
        known = {key.split("/")[0] for key in self.objects if SEGMENT.match(key)}
        assert named and set(named) <= known, f"{what}: {named} named\n{result.describe()}"
        for generation in named:
            again = self.run(what, "--generation", generation, "--to-latest")
            assert again.code == 0, f"{what}: the advice does not work\n{again.describe()}"


def said_left_out(result):
    text = result.text.lower()
    return any(word in text for word in ("left out", "hole", "missing", "not included", "without"))


@pytest.fixture(scope="module", params=["dir", "minio"])
def subject(request, base_dir, shared_minio):
    folder = base_dir / f"damage-{request.param}"
    folder.mkdir()
    scene = Scene(folder, 1, shared_minio)
    yield Subject(scene, scene.archive(request.param))
    scene.end()
    if not request.session.testsfailed:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def intact(subject, request, scene):
    """The subject, whole before and after; scene gives the seed."""
    subject.random = random.Random(scene.seed)
    yield subject
    subject.put_back()


def flip(data, rng):
    data = bytearray(data)
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    return bytes(data), f"bit flipped in byte {place} of {len(data)}"


def cut(data, rng):
    length = rng.randrange(len(data))
    return data[:length], f"cut to {length} of {len(data)} bytes"


def emptied(data, rng):
    del rng
    return b"", "emptied"


def lengthened(data, rng):
    return data + rng.randbytes(rng.randint(1, 64)), "bytes appended"


def decodes_to_the_same(data, intact):
    """A bit that zstd gives no meaning to: the content, by which everything is checked, is whole."""
    def decode(object_):
        return subprocess.run([env.tool("zstd"), "-dcq"], input=object_, capture_output=True,
                              check=False).stdout
    header = 8 + int.from_bytes(intact[4:8], "little")
    return data[:header] == intact[:header] and decode(data) == decode(intact)


def test_damage__untouched_archive_restores_everything(intact):
    result = intact.run("untouched").expect(0)
    assert len(oracle.read_rows(result.target)) == len(intact.rows)


@pytest.mark.parametrize("harm", [flip, cut, emptied, lengthened], ids=lambda harm: harm.__name__)
def test_damage__contents(intact, harm):
    keys = sorted(intact.objects)
    found = {0: 0, 4: 0}
    for _ in range(max(3, TRIALS // (4 if harm in (flip, cut) else 10))):
        key = intact.random.choice(keys)
        data, words = harm(intact.objects[key], intact.random)
        what = f"{key}: {words}"
        intact.archive.put(key, data)
        result = intact.run(what)
        found[result.code] += 1
        if result.code == 4:
            intact.follow_the_advice(what, result)
        needed = SEGMENT.match(key) and key in intact.segments()
        if needed and not decodes_to_the_same(data, intact.objects[key]):
            assert result.code == 4 or said_left_out(result), (
                f"{what}: a damaged object of the newest generation passed\n{result.describe()}")
        intact.archive.put(key, intact.objects[key])
    print(f"{found[4]} refused, {found[0]} harmless")


def test_damage__one_missing_segment(intact):
    """In the middle: exit 4. Near the tail, as a crash leaves it: exit 0, said, or exit 4. The very
    last is another matter: nothing behind it tells that it was there (its own test below)."""
    segments = intact.segments()
    assert len(segments) > 20, f"only {len(segments)} objects: too small an archive for this"
    for _ in range(max(4, TRIALS // 6)):
        place = intact.random.randrange(len(segments) - 1)
        key = segments[place]
        what = f"object {place + 1} of {len(segments)} missing: {key}"
        intact.archive.delete(key)
        result = intact.run(what)
        if place < len(segments) - 64:
            result.expect(4)
        if result.code == 4:
            intact.follow_the_advice(what, result)
        intact.archive.put(key, intact.objects[key])


def test_damage__the_first_segment_missing(intact):
    key = intact.segments()[0]
    intact.archive.delete(key)
    result = intact.run("the first object of the newest generation is missing")
    assert result.code == 4 or said_left_out(result), result.describe()


def test_damage__the_last_segment_missing_is_the_end(intact):
    """Nobody can know that it was there, unless a claim or a header says so; what is restored is a
    prefix."""
    key = intact.segments()[-1]
    intact.archive.delete(key)
    result = intact.scene.restore_aside(intact.archive)
    assert result.code in (0, 4), result.describe()
    if result.code == 0:
        rows = oracle.read_rows(result.target)
        assert rows == intact.rows[:len(rows)]


def test_damage__two_swapped(intact):
    segments = intact.segments()
    for _ in range(max(2, TRIALS // 15)):
        one, other = intact.random.sample(segments, 2)
        intact.archive.put(one, intact.objects[other])
        intact.archive.put(other, intact.objects[one])
        result = intact.run(f"swapped: {one} and {other}")
        assert result.code == 4 or said_left_out(result), result.describe()
        intact.archive.put(one, intact.objects[one])
        intact.archive.put(other, intact.objects[other])


def test_damage__a_foreign_object_under_a_good_name(intact):
    """Frames of another generation, renamed: its header does not say what its name says."""
    others = [key for key in intact.objects if SEGMENT.match(key) and key not in intact.segments()]
    for _ in range(max(2, TRIALS // 15)):
        key = intact.random.choice(intact.segments())
        intact.archive.put(key, intact.objects[intact.random.choice(others)])
        result = intact.run(f"foreign object as {key}")
        assert result.code == 4 or said_left_out(result), result.describe()
        intact.archive.put(key, intact.objects[key])


def test_damage__stray_objects_are_passed_over(intact):
    """Things that are none of ours lie about: a .DS_Store, a folder, the reserved compact/."""
    generation = intact.segments()[0].split("/")[0]
    strays = (".DS_Store", "notes.txt", f"{generation}/compact/something",
              f"{generation}/wal/README", "generations/README.txt")
    for key in strays:
        intact.archive.put(key, b"not ours")
    result = intact.run("strays").expect(0)
    assert len(oracle.read_rows(result.target)) == len(intact.rows)


def test_damage__a_crash_hole_is_restored_up_to_it(intact):
    """Two of the last objects are missing, newer ones lie behind: what several uploads in flight
    leave after a crash. Objects of an idle, clean tail say `archived` beyond the hole, so exit 4 is
    right there; a real one comes from a kill (test_kill_restore). Never a wrong restore."""
    segments = intact.segments()
    intact.archive.delete(segments[-2])
    result = intact.run("hole before the last object")
    if result.code == 0:
        assert said_left_out(result), result.describe()


def test_damage__births_and_claims(intact):
    """A damaged or missing birth, claim or manifest of the newest generation never gives a wrong
    or silently shorter restore."""
    generation = intact.segments()[0].split("/")[0]
    for key in sorted(intact.objects):
        if not (BIRTH.match(key) or key.startswith(generation) and (CLAIM.match(key)
                                                                    or COMPLETE.match(key))):
            continue
        intact.archive.delete(key)
        result = intact.run(f"{key} missing")
        print(f"{key} missing: exit {result.code}")
        intact.archive.put(key, b"{")
        result = intact.run(f"{key} garbled")
        print(f"{key} garbled: exit {result.code}")
        intact.archive.put(key, intact.objects[key])


def test_damage__an_older_snapshot_or_generation_does_not_matter(intact):
    """The generation before the newest may be gone: the newest has its own snapshot."""
    generation = intact.segments()[0].split("/")[0]
    for key in intact.objects:
        if not key.startswith((generation, "generations/")):
            intact.archive.delete(key)
    result = intact.run("older generation gone").expect(0)
    assert len(oracle.read_rows(result.target)) == len(intact.rows)


def test_damage__list_shows_a_hole(intact):
    segments = intact.segments()
    key = segments[len(segments) // 3]
    intact.archive.delete(key)
    result = intact.scene.restore_aside(intact.archive, "--list")
    assert result.code in (0, 4), result.describe()
    assert any(word in result.text.lower() for word in ("hole", "gap", "missing")), (
        result.describe())
