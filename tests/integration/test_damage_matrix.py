# SPDX-License-Identifier: Apache-2.0
"""Goal: damage of a whole archive, nothing left to chance. Of more than 200 objects, each one missing,
under a second name, in another's place, cut at every length, and with every byte changed: 100 % are
detected or harmless, no restore with exit 0 is wrong, the last good position that is named is the last
good one, and nothing stays at the target.

Method: a server's archive in memory; the state at every position of it, whose rows are compared with
the ledger first. Then one restore per change, in one process (restore_probe.c). The truth of a changed
segment is arithmetic: what lies before it is good.

All of it are half a million restores: HARVEY_DAMAGE_PART=K/N does the K-th of N parts of the objects (K
from 1; 1/1 is all), by default one of 40, drawn by the seed. Objects larger than HARVEY_DAMAGE_BYTES (1024)
are cut at and changed in that many places, drawn too.
"""

import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness import env, oracle
from harness.archive import DirectoryArchive, SEGMENT
from harness.load import Ledger
from harness.scene import Scene, check_integrity

pytestmark = pytest.mark.slow

PLACES = int(os.environ.get("HARVEY_DAMAGE_BYTES", "1024"))


class Verdict:
    def __init__(self, line):
        words = line.split()
        self.line = line.strip()
        self.code, self.left_out, self.files = int(words[0]), words[2] == "1", int(words[4])
        self.position, self.digest, self.last_good = words[1], words[3], words[5]
        self.needs_choice = words[6] == "1"


class Probe:
    """The process that restores."""

    def __init__(self, folder, archive):
        binary = folder / "restore_probe"
        sources = [str(path.relative_to(env.ROOT)) for room in ("base", "archive", "restorer")
                   for path in sorted((env.ROOT / room).glob("*.c"))
                   if path.name not in ("restore_main.c",)]
        libs3 = next(str(path) for pattern in ("usr/lib/libs3.a", "usr/lib/*/libs3.a")
                     for path in Path("/").glob(pattern))
        subprocess.run(["gcc", "-std=gnu17", "-O2", "-I.", "-D_GNU_SOURCE", "-pthread", "-w", "-o",
                        binary, "tests/integration/restore_probe.c", *sources,
                        "-Wl,--wrap=curl_easy_setopt", "-Wl,--wrap=curl_easy_perform", libs3,
                        "-lsqlite3", "-lzstd", "-ljansson", "-lcurl", "-lxml2", "-lcrypto"],
                       cwd=env.ROOT, check=True, timeout=600)
        target = folder / "target"
        target.mkdir()
        self.child = subprocess.Popen([binary, archive.path, target / "r.db"], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, word="latest"):
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, f"the probe ended with {self.child.wait()}"
        return Verdict(line)

    def kill(self):
        self.child.kill()
        self.child.wait()


def position_key(text):
    generation, wal, frame = text.split("/")
    return generation, int(wal), int(frame)


class Matrix:
    """Archive, truth and probe."""

    def __init__(self, folder, shared_minio):
        self.folder = folder
        self.scene = Scene(folder, 1, shared_minio)
        self.archive = self.scene.archive("dir")
        self.fill()
        self.objects = {key: self.archive.get(key) for key in self.archive.keys()}
        assert len(self.objects) >= 200, len(self.objects)
        self.probe = self.scene.also_end(Probe(folder, self.archive))
        self.learn()
        self.done = self.refused = 0

    def fill(self):
        """Two generations, several leads and WALs' worth of small commits; the second goes on from a
        restored database."""
        for life in range(2):
            server = self.scene.server(self.archive, SHIP_INTERVAL_MS=0).start_ready()
            server.wait_snapshot()
            for part in range(2):
                for number in range(60):
                    server.insert(f"life {life} part {part} row {number}")
                    if number % 2:
                        server.wait_archived()
                server.kill()
                server.start_ready()
            server.wait_archived()
            server.stop_clean()
            if life == 0:
                self.scene.wipe()
                self.scene.restore(self.archive).expect(0)

    def learn(self):
        """The digest of the database at each position; rows and integrity of the newest."""
        self.latest = self.probe()
        assert self.latest.code == 0 and not self.latest.left_out, self.latest.line
        result = self.scene.restore_aside(self.archive).expect(0)
        check_integrity(result.target)
        rows = oracle.read_rows(result.target)
        assert len(rows) == 240 and rows == self.scene.source()
        self.truth = {self.latest.position: self.latest.digest}
        newest = position_key(self.latest.position)[0]
        self.run = sorted(key for key in self.objects if SEGMENT.match(key)
                          and key.startswith(newest))
        self.before = {}  # of each segment of the newest generation: the position before it
        last = None
        for key in sorted(key for key in self.objects if SEGMENT.match(key)):
            match = SEGMENT.match(key)
            frames = range(int(match["first"]), int(match["last"]) + 1)
            if key in self.run:
                self.before[key] = last
            for frame in frames:
                position = f"{match['generation']}/{int(match['wal'])}/{frame}"
                verdict = self.probe(position)
                if verdict.code == 0:
                    assert verdict.position == position
                    self.truth[position] = verdict.digest
                    last = position

    def judge(self, what, key=None):
        """One restore of what lies there now."""
        verdict = self.probe()
        self.done += 1
        where = f"{what}: {verdict.line}"
        if verdict.code == 0:
            assert verdict.digest == self.truth.get(verdict.position), f"a wrong restore: {where}"
            assert verdict.position == self.latest.position or verdict.left_out, (
                f"less than all, and not a word: {where}")
            return verdict
        assert verdict.code == 4, where
        assert verdict.files == 0, f"something stays at the target: {where}"
        self.refused += 1
        if key in self.before and self.before[key] in self.truth and \
                self.before[key].split("/")[0] == key.split("/")[0]:
            assert verdict.last_good == self.before[key], f"not the last good one: {where}"
        elif verdict.last_good != "-":
            assert verdict.last_good in self.truth or verdict.last_good.endswith("/1/0") or \
                self.probe(verdict.last_good).code in (0, 4), where
        return verdict

    def put(self, key, data):
        self.archive.put(key, data)

    def part(self):
        """The keys of this part."""
        part = re.fullmatch(r"(\d+)/(\d+)", self.chosen)
        return sorted(self.objects)[int(part[1]) - 1::int(part[2])]

    def tell(self, what):
        print(f"{what}: {self.done} changes of {len(self.part())} of {len(self.objects)} objects, "
              f"{self.refused} refused, {self.done - self.refused} harmless or said; 0 wrong")


@pytest.fixture(scope="module")
def matrix(request, shared_minio):
    del shared_minio
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="harvey-test-matrix-", dir=memory))
    made = Matrix(folder, None)
    yield made
    made.scene.end()
    if request.session.testsfailed:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)


@pytest.fixture
def whole(matrix, scene):
    """The matrix with its archive whole, before and after."""
    matrix.random = random.Random(scene.seed)
    matrix.chosen = os.environ.get("HARVEY_DAMAGE_PART") or f"{matrix.random.randint(1, 40)}/40"
    matrix.done = matrix.refused = 0
    yield matrix
    for key in matrix.archive.keys():
        if key not in matrix.objects:
            matrix.archive.delete(key)
    for key, data in matrix.objects.items():
        matrix.put(key, data)


def test_damage_matrix__missing(whole):
    for key in whole.part():
        if key == whole.run[-1]:
            continue  # nothing behind it tells that it was there
        whole.archive.delete(key)
        whole.judge(f"{key} missing", key)
        whole.put(key, whole.objects[key])
    whole.tell("missing")


def renamed(key, part, change):
    match = SEGMENT.match(key)
    return key[:match.start(part)] + change(match[part]) + key[match.end(part):]


def test_damage_matrix__under_a_second_name(whole):
    """The object stays, and a copy of it lies under another name that could be one: of a later pass, of
    another lead, of a longer or another range, in another WAL or generation."""
    generations = sorted({key[:25] for key in whole.objects if SEGMENT.match(key)})
    for key in whole.part():
        if not SEGMENT.match(key):
            continue
        names = {
            "another time": renamed(key, "unix_ms", lambda text: f"{int(text) + 7:013d}"),
            "another term": renamed(key, "term", lambda text: f"{int(text) + 1:010d}"),
            "another range": renamed(key, "last", lambda text: f"{int(text) + 1:010d}"),
            "another WAL": renamed(key, "wal", lambda text: f"{int(text) + 1:010d}"),
            "another generation": renamed(key, "generation", lambda text: next(
                other for other in generations if other != text)),
            "another lead": key[:-len("xx.wal.zst")] + "00.wal.zst",
        }
        for how, name in names.items():
            if name in whole.objects:
                continue
            whole.put(name, whole.objects[key])
            whole.judge(f"{key} also as {how}")
            whole.archive.delete(name)
    whole.tell("doubled")


def test_damage_matrix__swapped(whole):
    """With the next of its kind, and with another at random."""
    keys = sorted(whole.objects)
    for key in whole.part():
        following = keys[(keys.index(key) + 1) % len(keys)]
        for other in (following, whole.random.choice(keys)):
            if whole.objects[other] == whole.objects[key]:
                continue
            whole.put(key, whole.objects[other])
            whole.judge(f"{key} holds {other}", key)
            whole.put(other, whole.objects[key])
            whole.judge(f"{key} and {other} swapped")
            whole.put(key, whole.objects[key])
            whole.put(other, whole.objects[other])
    whole.tell("swapped")


def test_damage_matrix__cut_at_every_length(whole):
    for key in whole.part():
        data = whole.objects[key]
        lengths = range(len(data))
        if len(data) > PLACES:
            lengths = whole.random.sample(lengths, PLACES)
        for length in lengths:
            whole.put(key, data[:length])
            verdict = whole.judge(f"{key} cut to {length} of {len(data)}", key)
            assert verdict.code == 4 or key not in whole.run, verdict.line
        whole.put(key, data)
    whole.tell("cut")


def test_damage_matrix__every_byte_changed(whole):
    """One bit of each byte, which one is drawn; and the byte turned over."""
    for key in whole.part():
        data = whole.objects[key]
        places = range(len(data))
        if len(data) > PLACES:
            places = whole.random.sample(places, PLACES)
        for place in places:
            for mask in (1 << whole.random.randrange(8), 0xFF):
                changed = bytearray(data)
                changed[place] ^= mask
                whole.put(key, bytes(changed))
                whole.judge(f"{key}: byte {place} of {len(data)} changed by {mask:02x}", key)
        whole.put(key, data)
    whole.tell("changed")
