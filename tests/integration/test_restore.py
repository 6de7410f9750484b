# SPDX-License-Identifier: Apache-2.0
"""Goal: what `restore` gives is, byte for byte, what SQLite itself makes of the same frames, at every
commit and at no other place; and every refusal has its exit status, its words, and leaves nothing.

Method: no server. A real SQLite database lives (harness/forge.py keeps what its file held after every
commit), its -wal files are cut into objects by an independent writer of docs/archive-format.md, and
bin/restore runs on that archive.
"""

import json
import os
import random
import struct
import subprocess

import pytest

from harness.archive import BucketArchive, DirectoryArchive
from harness.forge import BASE_UNIX_MS, Story, cut_anywhere, cut_at_commits, point_of
from harness.process import clean_environment
from harness.restoring import restore_argv, rfc3339, run_restore
from harness.stage import Stage, as_somebody_else, big, lively, simple

# ---- every commit, and nothing but commits ----

@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_restore__every_commit(stage, page_size):
    """Objects cut anywhere, also inside transactions; several WALs; two snapshots."""
    rng = random.Random(stage.scene.seed)
    sizes = (10, 3000) if page_size < 65536 else (10, 40000)
    story = lively(stage.story(page_size=page_size), rng, 24, 3, sizes).end()
    generation = stage.forge.generation(page_size=page_size)
    generation.claim(1, "11111111")
    generation.ship(story, cut_anywhere(rng.random()))
    for base in (story.commits[0], story.commits[len(story.commits) // 2]):
        generation.snapshot(base.data, point_of(story, base), base.unix_ms, part_bytes=3 * page_size)
    for commit in story.commits:
        stage.gives(commit, "--to-position", f"{generation.id}/{commit.wal_no}/{commit.frame_no}")
    stage.gives(story.commits[-1], "--to-latest")


def test_restore__between_commits_is_refused_and_the_advice_works(stage):
    rng = random.Random(stage.scene.seed)
    story = lively(stage.story(), rng, 8, 2)
    story.run(*[("INSERT INTO test(value) VALUES(?)", (rng.randbytes(3000),))] * 15)  # 15 pages at least
    story.end()
    generation = stage.forge.generation()
    generation.claim(1, "11111111")
    generation.ship(story, cut_anywhere(3))
    generation.snapshot(story.commits[0].data, point_of(story, story.commits[0]), BASE_UNIX_MS)
    by_position = {commit.position: commit for commit in story.commits}
    tried = 0
    for wal_no in story.wals():
        frames = len(story.wal(wal_no).frames)
        for frame_no in list(range(1, frames + 1)) + [frames + 1, frames + 100000]:
            if (wal_no, frame_no) in by_position or (tried > 40 and frame_no <= frames):
                continue
            tried += 1
            before = max(p for p in by_position if p < (wal_no, frame_no))
            result = stage.refuses(4, "--to-position", f"{generation.id}/{wal_no}/{frame_no}",
                                   words=["--to-position"])
            assert result.positions()[-1] == (generation.id, *before), result.describe()
    assert tried > 10
    advice = result.stderr.split("--to-position ")[1].split()[0]
    stage.gives(by_position[before], "--to-position", advice)


def test_restore__to_time(stage):
    """The last commit at or before it: at each commit's moment, a ms before and a ms after."""
    rng = random.Random(stage.scene.seed)
    story = lively(stage.story(), rng, 20, 3).end()
    generation = stage.forge.generation()
    generation.claim(1, "11111111")
    generation.ship(story, cut_at_commits(4))
    for number in (0, 7, 15):
        base = story.commits[number]
        generation.snapshot(base.data, point_of(story, base), base.unix_ms)
    for before, commit in zip(story.commits, story.commits[1:]):
        stage.gives(commit, "--to-time", rfc3339(commit.unix_ms))
        stage.gives(before, "--to-time", rfc3339(commit.unix_ms - 1))
    stage.gives(story.commits[-1], "--to-time", rfc3339(story.commits[-1].unix_ms + 10**9))
    stage.gives(story.commits[0], "--to-time", rfc3339(story.commits[0].unix_ms))
    stage.refuses(4, "--to-time", rfc3339(story.commits[0].unix_ms - 1), words=["nothing"])


def test_restore__time_inside_a_pass(stage):
    """A row of the time table is a capture pass: what it took was committed at or before its time,
    when exactly is unknown; so a time between two rows gives the earlier one."""
    story = stage.story()
    for number in range(6):
        story.run(("INSERT INTO test(value) VALUES(?)", (number,)))
    story.end()
    generation = stage.forge.generation()
    wal = story.wal(1)
    ends = [commit.frame_no for commit in story.commits]
    generation.segment(wal, 1, 1, ends[-1], [(ends[3], 2000 + BASE_UNIX_MS),
                                             (ends[6], 9000 + BASE_UNIX_MS)], None)
    generation.snapshot(story.commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    for offset, number in ((0, 0), (1999, 0), (2000, 3), (8999, 3), (9000, 6), (99999, 6)):
        stage.gives(story.commits[number], "--to-time", rfc3339(BASE_UNIX_MS + offset))


def test_restore__snapshot_alone(stage):
    """No WAL object at all: a generation that has just begun."""
    story = stage.story().end()
    generation = stage.forge.generation()
    generation.snapshot(story.commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    stage.gives(story.commits[0], "--to-latest")
    stage.gives(story.commits[0], "--to-position", f"{generation.id}/1/0")


def test_restore__snapshot_inside_a_wal_and_at_its_end(stage):
    rng = random.Random(1)
    story = lively(stage.story(), rng, 12, 2).end()
    generation = stage.forge.generation()
    generation.ship(story, cut_at_commits(3))
    last_of_first = [commit for commit in story.commits if commit.wal_no == 1][-1]
    for base in (story.commits[3], last_of_first, story.commits[-1]):
        generation.snapshot(base.data, point_of(story, base), base.unix_ms)
        stage.gives(story.commits[-1], "--to-latest")
        stage.gives(base, "--to-position", f"{generation.id}/{base.wal_no}/{base.frame_no}")


def test_restore__big_endian_checksums(stage):
    """A WAL written on a machine of the other kind."""
    story = lively(stage.story(), random.Random(2), 10).end()
    story.done = {number: wal.with_big_endian_checksums() for number, wal in story.done.items()}
    generation = stage.forge.generation()
    generation.ship(story, cut_anywhere(5))
    generation.snapshot(story.commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    for commit in story.commits:
        stage.gives(commit, "--to-position", f"{generation.id}/{commit.wal_no}/{commit.frame_no}")


def test_restore__a_database_that_shrinks_and_grows(stage):
    """auto_vacuum and VACUUM: the last commit's size is the file's."""
    rng = random.Random(3)
    story = stage.story(auto_vacuum=1)
    for _ in range(3):
        for _ in range(3):
            story.run(*[("INSERT INTO test(value) VALUES(?)", (rng.randbytes(2000),))
                        for _ in range(60)])
        story.run("DELETE FROM test WHERE id % 3")
        story.reset()
        story.run("DELETE FROM test")
        story.vacuum()
    story.end()
    sizes = [len(commit.data) for commit in story.commits]
    assert max(sizes) > 20 * min(sizes)
    generation = stage.forge.generation()
    generation.ship(story, cut_at_commits(2))
    largest = story.commits[sizes.index(max(sizes))]
    for base in (story.commits[0], largest):
        generation.snapshot(base.data, point_of(story, base), base.unix_ms, part_bytes=1 << 16)
    for commit in story.commits:
        result = stage.run("--to-position", f"{generation.id}/{commit.wal_no}/{commit.frame_no}")
        same_pages(result.expect(0).target, commit, story.page_size)


def same_pages(path, commit, page):
    """Equal but for pages that are free and were never written: their content means nothing."""
    data = path.read_bytes()
    assert len(data) == len(commit.data)
    different = {at // page + 1 for at in range(0, len(data), page)
                 if data[at:at + page] != commit.data[at:at + page]}
    assert different <= free_pages(data, page), f"{commit.position}: pages {sorted(different)}"


def free_pages(data, page):
    found, trunk = set(), struct.unpack(">I", data[32:36])[0]
    while trunk:
        body = data[(trunk - 1) * page:trunk * page]
        following, count = struct.unpack(">2I", body[:8])
        found |= set(struct.unpack(f">{count}I", body[8:8 + 4 * count]))
        trunk = following
    return found


def test_restore__ends_inside_a_transaction(stage):
    """The rest of a large transaction never arrived: its first objects must not be applied."""
    rng = random.Random(4)
    story = lively(stage.story(), rng, 5).end()
    story_commits = list(story.commits)
    wal = story.wal(1)
    last = max(wal.commits)
    before = sorted(wal.commits)[-2]
    assert last - before > 3 or last > 20
    for cut in range(before + 1, last):
        generation = stage.forge.generation(number=cut)
        link = None
        generation.segment(wal, 1, 1, before, [(before, story_commits[-2].unix_ms)], link)
        link = ((1, before), wal.sums[before])
        middle = (before + 1 + cut) // 2
        for first, end in ((before + 1, middle), (middle + 1, cut)):
            if first <= end:
                generation.segment(wal, 1, first, end, [(end, story_commits[-1].unix_ms)], link)
                link = ((1, end), wal.sums[end])
        generation.snapshot(story_commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
        stage.gives(story_commits[-2], "--to-latest")


def test_restore__many_small_and_few_large_objects(stage):
    """More objects than may be under way at once, some near the size cap; --jobs 1 and many."""
    rng = random.Random(5)
    story = stage.story()
    for number in range(150):
        story.run(("INSERT INTO test(value) VALUES(?)", (rng.randbytes(30),)))
        if number % 50 == 49:
            story.run(*[("INSERT INTO test(value) VALUES(?)", (rng.randbytes(9000),))
                        for _ in range(600)])
    story.end()

    def cuts(wal_no, frames, commits):
        ends, last = [], 0
        for commit in commits:
            while commit - last > 1000:
                last += 1000
                ends.append(last)
            ends.append(commit)
            last = commit
        return ends
    generation = stage.forge.generation()
    generation.ship(story, cuts)
    generation.snapshot(story.commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    assert max(os.path.getsize(stage.archive.path / key) for key in generation.segments) > 3 << 20
    for jobs in (1, 2, 32):
        stage.gives(story.commits[-1], "--to-latest", "--jobs", jobs)


# ---- a bucket ----

def test_restore__from_a_bucket(stage):
    """The same objects in MinIO: many threads, every commit of a few, damage; then it goes away."""
    minio = stage.scene.minio()
    story, generation = simple(stage, commits=40, wals=4)
    bucket = BucketArchive(minio)
    minio.s3.make_bucket(bucket.bucket)
    for key in stage.archive.keys():
        bucket.put(key, stage.archive.get(key))
    folder, stage.archive = stage.archive, bucket
    for jobs in (1, 8, 32):
        stage.gives(story.commits[-1], "--to-latest", "--jobs", jobs)
    for commit in story.commits[::9]:
        stage.gives(commit, "--to-position", f"{generation.id}/{commit.wal_no}/{commit.frame_no}")
    key = generation.segments[20]
    bucket.put(key, folder.get(key)[:-3])
    result = stage.refuses(4, "--to-latest")
    assert result.positions()[-1][1:] == story.commits[20].position
    bucket.put(key, folder.get(key))
    listing = stage.run("--list").expect(0)
    assert generation.id in listing.stdout
    right = bucket.environment()
    bucket.environment = lambda: {**right, "HARVEY_S3_SECRET_ACCESS_KEY": "wrong-secret"}
    result = stage.refuses(6, "--to-latest")
    assert "wrong-secret" not in result.text
    bucket.environment = lambda: right
    minio.kill()
    stage.refuses(6, "--to-latest", words=["127.0.0.1"])
    minio.start_ready()
    stage.gives(story.commits[-1], "--to-latest")


# ---- damage ----

def damaged(data, rng):
    """Ways to spoil an object; None removes it."""
    place = rng.randrange(len(data))
    flipped = bytearray(data)
    flipped[place] ^= 1 << rng.randrange(8)
    return [None, b"", data[:rng.randrange(len(data))], bytes(flipped), data + b"x",
            bytes(len(data))]


def test_restore__every_object_spoiled(stage):
    """Never a wrong database: exit 4 with a last good position that can be had, or (objects that
    this restore does not need, an older snapshot that serves) the whole."""
    rng = random.Random(stage.scene.seed)
    story, generation = simple(stage, commits=14, wals=3, cuts=cut_at_commits(2))
    base = story.commits[5]
    generation.snapshot(base.data, point_of(story, base), base.unix_ms, part_bytes=8192)
    by_position = {commit.position: commit for commit in story.commits}
    codes = {0: 0, 4: 0}
    for key in stage.archive.keys():
        data = stage.archive.get(key)
        for spoiled in damaged(data, rng):
            if spoiled is None:
                stage.archive.delete(key)
            else:
                stage.forge.put(key, spoiled)
            result = stage.run("--to-latest")
            codes[result.code] = codes.get(result.code, 0) + 1
            what = f"{key} ({len(spoiled or b'')} of {len(data)} bytes): {result.describe()}"
            if key.startswith("generations/"):  # the only birth: a person says which generation it was
                named = f"--generation {generation.id}" if spoiled is None else "--generation"
                assert result.code == 4 and named in result.stderr, what
                assert not result.left_behind(), what
                continue
            assert result.code in (0, 4), what
            if result.code == 0:
                position = result.positions()[0][1:]
                assert result.target.read_bytes() == by_position[position].data, what
                unknowable = spoiled is None and key == generation.segments[-1]  # it just ends before
                assert position == story.commits[-1].position or unknowable or (
                    "left out" in result.stderr), what
            else:
                assert not result.left_behind(), what
                if "--to-position" in result.stderr:
                    advice = result.stderr.split("--to-position ")[1].split()[0]
                    again = stage.run("--to-position", advice)
                    assert again.code == 0, f"{what}\n{again.describe()}"
                    position = again.positions()[0][1:]
                    assert again.target.read_bytes() == by_position[position].data, what
                else:
                    assert "no good position" in result.stderr, what
        stage.forge.put(key, data)
    print(codes)
    assert codes[4] > 10 and codes[0] > 5


def test_restore__last_good_is_the_commit_before_the_first_damage(stage):
    """Two spoiled objects: the position named lies before the first of them, although the last is
    looked at first."""
    story, generation = simple(stage, commits=16, wals=1)
    keys = generation.segments
    for number in (5, 11):
        stage.forge.put(keys[number], stage.archive.get(keys[number])[:-9])
    result = stage.refuses(4, "--to-latest")
    assert result.positions()[-1][1:] == story.commits[5].position, result.describe()
    stage.gives(story.commits[5], "--to-position", f"{generation.id}/1/{story.commits[5].frame_no}")


def test_restore__spoiled_snapshot_an_older_one_serves(stage):
    story, generation = simple(stage, commits=12, wals=2)
    base = story.commits[6]
    folder = generation.snapshot(base.data, point_of(story, base), base.unix_ms, part_bytes=8192)
    part = f"{folder}/part-{2:010d}.db.zst"
    for name in (part, f"{folder}/complete.json"):
        data = stage.archive.get(name)
        for spoiled in (data[:-1], bytes(len(data)), None):
            if spoiled is None:
                stage.archive.delete(name)
            else:
                stage.forge.put(name, spoiled)
            result = stage.gives(story.commits[-1], "--to-latest")
            if spoiled is not None:
                assert "snapshot is damaged" in result.stderr, result.describe()
        stage.forge.put(name, data)


def test_restore__a_manifest_longer_than_its_parts_need(stage):
    """Nobody reads it as JSON, which takes some 20 times its bytes: an older snapshot serves."""
    story, generation = simple(stage)
    base = story.commits[6]
    folder = generation.snapshot(base.data, point_of(story, base), base.unix_ms, part_bytes=8192)
    parts = len([key for key in stage.archive.keys() if key.startswith(f"{folder}/part-")])
    limit = (64 + parts) << 10
    good = stage.archive.get(f"{folder}/complete.json")
    for count, read in ((limit, True), (limit + 1, False)):
        stage.forge.put(f"{folder}/complete.json", good.ljust(count))
        result = stage.gives(story.commits[-1], "--to-latest")
        assert ("complete.json is larger than" in result.stderr) != read, result.describe()


def test_restore__objects_that_lie(stage):
    """Well-formed objects, their hashes right, that belong to another history."""
    story = lively(stage.story(), random.Random(6), 9).end()
    other = lively(stage.story(), random.Random(8), 9).end()
    wal, foreign = story.wal(1), other.wal(1)
    ends = [commit.frame_no for commit in story.commits]
    lies = {
        "another link": dict(link=((1, ends[3]), (1, 2))),
        "another link's frame": dict(link=((1, ends[3] - 1), wal.sums[ends[3]])),
        "another before": dict(before=(3, 4)),
        "other salts": dict(salts=(5, 6)),
        "frames of another WAL": dict(wal=foreign),
    }
    for number, (what, lie) in enumerate(lies.items(), 1):
        archive = Stage(stage.scene)
        generation = archive.forge.generation(number=number)
        zero = story.commits[0]
        generation.snapshot(zero.data, ((1, 0), (0, 0)), BASE_UNIX_MS)
        generation.segment(wal, 1, 1, ends[3], [(ends[3], BASE_UNIX_MS + 1)], None)
        liar = lie.get("wal", wal)
        change = {name: value for name, value in lie.items() if name not in ("wal", "link")}
        last = min(ends[5], len(liar.frames))
        generation.segment(liar, 1, ends[3] + 1, last, [(last, BASE_UNIX_MS + 2)],
                           lie.get("link", ((1, ends[3]), wal.sums[ends[3]])), **change)
        generation.segment(wal, 1, last + 1, ends[8], [(ends[8], BASE_UNIX_MS + 3)],
                           ((1, last), wal.sums[last]))
        result = archive.refuses(4, "--to-latest")
        assert result.positions()[-1][1:] == story.commits[3].position, (what, result.describe())


def test_restore__a_snapshot_of_another_history(stage):
    """The chain's checksum at the snapshot's frame is not the manifest's."""
    story, generation = simple(stage, commits=10, wals=1)
    base = story.commits[4]
    generation.snapshot(base.data, (base.position, (1, 2)), base.unix_ms)
    position = f"{generation.id}/1/{base.frame_no}"
    for commit, options in ((story.commits[-1], ["--to-latest"]), (base, ["--to-position", position])):
        result = stage.gives(commit, *options)  # an older one serves
        assert "another history" in result.stderr, result.describe()
    for key in stage.archive.keys():
        if f"{0:010d}-5a5a5a5a" in key:
            stage.archive.delete(key)
    stage.refuses(4, "--to-latest", words=["another history"])
    stage.refuses(4, "--to-position", position, words=["another history"])


def test_restore__the_database_itself_is_damaged(stage):
    """What was archived is no sound database: the check says so, and can be left out."""
    story = lively(stage.story(), random.Random(9), 5).end()
    data = bytearray(story.commits[-1].data)
    data[2 * story.page_size:2 * story.page_size + 200] = bytes(200)
    generation = stage.forge.generation()
    generation.snapshot(bytes(data), ((1, 0), (0, 0)), BASE_UNIX_MS)
    stage.refuses(4, "--to-latest", words=["integrity_check", "--integrity none"])
    result = stage.run("--to-latest", "--integrity", "none").expect(0)
    assert result.target.read_bytes() == data


# ---- holes, forks, generations ----

def holed(stage, missing, archived, window=8):
    story = lively(stage.story(), random.Random(10), 14).end()
    generation = stage.forge.generation(window=window)
    generation.snapshot(story.commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    wal, link, first = story.wal(1), None, 1
    for number, commit in enumerate(story.commits[1:], 1):
        last = commit.frame_no
        if number not in missing:
            point = point_of(story, story.commits[archived]) if 0 < archived < number else None
            generation.segment(wal, 1, first, last, [(last, commit.unix_ms)], link, archived=point)
        link, first = ((1, last), wal.sums[last]), last + 1
    return story, generation


def test_restore__hole_that_a_crash_left(stage):
    story, generation = holed(stage, missing={10, 12}, archived=9)
    result = stage.gives(story.commits[9], "--to-latest")
    assert "left out" in result.stderr, result.describe()
    result = stage.run("--to-latest", "--json").expect(0)
    assert result.json()["left_out"]
    commit = story.commits[13]
    result = stage.refuses(4, "--to-position", f"{generation.id}/1/{commit.frame_no}")
    assert result.positions()[-1][1:] == story.commits[9].position


def test_restore__hole_that_no_crash_leaves(stage):
    """The objects behind it say that it was archived; or there are too many of them."""
    for missing, archived, window in (({10}, 11, 8), ({3}, 0, 8)):
        one = Stage(stage.scene)
        story, generation = holed(one, missing, archived, window)
        good = story.commits[min(missing) - 1]
        result = one.refuses(4, "--to-latest")
        assert result.positions()[-1] == (generation.id, *good.position), result.describe()
        one.gives(good, "--to-position", f"{generation.id}/1/{good.frame_no}")
        one.gives(story.commits[1], "--to-time", rfc3339(story.commits[1].unix_ms))
        one.refuses(4, "--to-time", rfc3339(story.commits[-1].unix_ms))
        listing = one.run("--list").expect(0)
        assert "hole" in listing.stdout.lower()


def two_generations(stage, second_parent=None, archived=False, **second):
    story, one = simple(stage, commits=6, wals=1, seed=11)
    end = story.commits[-1]
    later = Story(stage.scene.path("story"), base=end.data, unix_ms=end.unix_ms + 60000)
    lively(later, random.Random(12), 4).end()
    two = stage.forge.generation(number=2, tail=2, parent=second_parent or one.id,
                                 parent_point=point_of(story, end), cause="restored",
                                 unix_ms=end.unix_ms + 60000, **second)
    two.ship(later, cut_at_commits(), archived=point_of(later, later.commits[0]) if archived else None)
    return story, one, later, two


def test_restore__generations_follow_each_other(stage):
    """The newest with a complete snapshot is the latest; a time belongs to the one that was live."""
    story, one, later, two = two_generations(stage)
    result = stage.gives(story.commits[-1], "--to-latest")
    assert "left out" in result.stderr and two.id in result.stderr, result.describe()
    two.snapshot(later.commits[0].data, ((1, 0), (0, 0)), later.commits[0].unix_ms)
    result = stage.gives(later.commits[-1], "--to-latest")
    assert "left out" not in result.stderr
    stage.gives(story.commits[-1], "--to-latest", "--generation", one.id)
    for part in (story, later):
        for commit in part.commits:
            stage.gives(commit, "--to-time", rfc3339(commit.unix_ms))
    stage.gives(story.commits[-1], "--to-time", rfc3339(later.commits[0].unix_ms - 1))
    stage.refuses(3, "--to-latest", "--generation", "00000007-0123456789abcdef", words=[two.id])


def test_restore__time_in_a_generation_without_snapshot(stage):
    """A second life from an earlier commit: at its time, before its first snapshot, what is given is
    where it began; not what the first life had written behind that."""
    story, one = simple(stage, commits=9, wals=1, seed=14)
    begin = story.commits[4]
    moment = story.unix_ms + 60000
    two = stage.forge.generation(number=2, tail=2, parent=one.id, cause="restored",
                                 parent_point=point_of(story, begin), unix_ms=moment)
    for asked in (moment, moment + 5000):
        result = stage.gives(begin, "--to-time", rfc3339(asked))
        assert two.id in result.stderr
    stage.gives(story.commits[-1], "--to-time", rfc3339(moment - 1))


def test_restore__fork_needs_a_choice(stage):
    story, one, later, two = two_generations(stage)
    two.snapshot(later.commits[0].data, ((1, 0), (0, 0)), later.commits[0].unix_ms)
    end = story.commits[-1]
    other = Story(stage.scene.path("story"), base=end.data, unix_ms=end.unix_ms + 70000)
    lively(other, random.Random(13), 4).end()
    three = stage.forge.generation(number=3, tail=3, parent=one.id, cause="restored",
                                   parent_point=point_of(story, end), unix_ms=end.unix_ms + 70000)
    three.ship(other, cut_at_commits())
    three.snapshot(other.commits[0].data, ((1, 0), (0, 0)), other.commits[0].unix_ms)
    words = [f"--generation {two.id}", f"--generation {three.id}"]
    stage.refuses(4, "--to-latest", words=words)
    stage.refuses(4, "--to-time", rfc3339(other.unix_ms), words=words)
    stage.gives(later.commits[-1], "--to-latest", "--generation", two.id)
    stage.gives(other.commits[-1], "--to-latest", "--generation", three.id)
    stage.gives(story.commits[3], "--to-time", rfc3339(story.commits[3].unix_ms))
    listing = stage.run("--list").expect(0)
    assert "fork" in listing.stdout.lower()
    assert len(stage.run("--list", "--json").expect(0).json()["fork"]) == 2


def test_restore__superseded_generation_is_no_fork(stage):
    story, one, later, two = two_generations(stage)
    two.snapshot(later.commits[0].data, ((1, 0), (0, 0)), later.commits[0].unix_ms)
    end = story.commits[-1]
    three = stage.forge.generation(number=3, tail=3, parent=one.id, cause="fork",
                                   supersedes=[two.id], parent_point=point_of(story, end),
                                   unix_ms=end.unix_ms + 70000)
    three.snapshot(end.data, ((1, 0), (0, 0)), end.unix_ms + 70000)
    stage.gives_data = stage.run("--to-latest").expect(0)
    assert stage.gives_data.positions()[0] == (three.id, 1, 0)


def test_restore__birth_is_missing(stage):
    """What lies behind a lost birth is not passed over in silence, and can be had by its name."""
    story, one, later, two = two_generations(stage)
    two.snapshot(later.commits[0].data, ((1, 0), (0, 0)), later.commits[0].unix_ms)
    stage.archive.delete("generations/00000002.json")
    words = [f"--generation {two.id}", f"--generation {one.id}"]
    stage.refuses(4, "--to-latest", words=words)
    stage.refuses(4, "--to-time", rfc3339(later.unix_ms), words=words)
    result = stage.gives(later.commits[-1], "--to-latest", "--generation", two.id)
    assert "birth" in result.stderr
    stage.gives(story.commits[-1], "--to-latest", "--generation", one.id)
    stage.gives(later.commits[2], "--to-position",
                f"{two.id}/{later.commits[2].wal_no}/{later.commits[2].frame_no}")
    stage.archive.delete("generations/00000001.json")
    stage.refuses(4, "--to-latest", words=["birth is missing"])
    stage.refuses(3, "--to-latest", "--generation", "00000007-0123456789abcdef")


def test_restore__the_complete_snapshot_is_lost(stage):
    """A generation whose segments say that something was archived held a complete snapshot: without one it is
    damaged, not empty, and the one before it is no silent answer."""
    story, one, _, two = two_generations(stage, archived=True)
    stage.refuses(4, "--to-latest", words=[f"--generation {one.id}", two.id, "is lost"])
    stage.refuses(4, "--to-latest", "--generation", two.id, words=[two.id, "is lost"])
    stage.gives(story.commits[-1], "--to-latest", "--generation", one.id)


def test_restore__foreign_things_beside_the_archive(stage):
    """A directory that holds other things too: nobody reads them, whatever is wrong with them. What a lost
    birth left is found all the same."""
    story, one, later, two = two_generations(stage)
    for name in ("2024", "Photos", "lost.found"):
        folder = stage.archive.path / name
        folder.joinpath(*["deep"] * 40).mkdir(parents=True)
        (folder / "loop").symlink_to("loop")
        (folder / "private").mkdir(mode=0o700)
    (stage.archive.path / "0-loop").symlink_to("0-loop")
    restore = as_somebody_else(stage)
    (stage.archive.path / "2025").mkdir()
    (stage.archive.path / "2025").chmod(0)
    folder = stage.scene.path("out")
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    done = subprocess.run([*restore, "--to-latest", "-o", folder / "r.db"], capture_output=True,
                          text=True, cwd="/", timeout=60, check=False,
                          env=clean_environment(**stage.archive.environment()))
    assert done.returncode == 0, done
    assert (folder / "r.db").read_bytes() == story.commits[-1].data
    stage.archive.delete("generations/00000002.json")
    stage.refuses(4, "--to-latest", words=[f"--generation {two.id}"])
    stage.archive.delete("generations/00000001.json")
    stage.refuses(4, "--to-latest", words=["birth is missing"])


def test_restore__a_pipe_under_an_objects_name(stage):
    """Damage like any other: nobody waits for it."""
    story, generation = simple(stage)
    for number, key in ((5, generation.segments[5]), (None, f"generations/{1:08d}.json")):
        path = stage.archive.path / key
        good = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        result = stage.refuses(4, "--to-latest")
        if number is not None:
            assert result.positions()[-1][1:] == story.commits[number].position
        path.unlink()
        path.write_bytes(good)
    stage.gives(story.commits[-1], "--to-latest")


def test_restore__a_birth_or_claim_that_cannot_be_read(stage):
    """It is told, and there is a way round it: what can be read in its place is a choice, and nobody who
    restores needs a claim."""
    story, one, later, two = two_generations(stage)
    two.snapshot(later.commits[0].data, ((1, 0), (0, 0)), later.commits[0].unix_ms)
    two.claim(1, "11111111")
    for number, spoiled, others in ((1, one, two), (2, two, one)):
        key = f"generations/{number:08d}.json"
        good = stage.archive.get(key)
        for data in (b"{", b"", good[:-3], good.replace(b'"format"', b'"farmot"')):
            stage.archive.put(key, data)
            stage.refuses(4, "--to-latest", words=[key, f"--generation", others.id])
            stage.refuses(4, "--to-time", rfc3339(later.unix_ms), words=[key, others.id])
            stage.gives(later.commits[-1], "--to-latest", "--generation", two.id)
            stage.gives(story.commits[-1], "--to-latest", "--generation", one.id)
            listing = stage.run("--list").expect(0)
            assert "DAMAGED" in listing.stdout and others.id in listing.stdout
            assert spoiled.id not in listing.stdout.replace(f"from {one.id}", "")
            assert stage.run("--list", "--json").expect(0).json()["damaged_births"] == 1
        stage.archive.put(key, good)
    stage.archive.put(f"{two.id}/leads/0000000001.json", b"{")
    stage.gives(later.commits[-1], "--to-latest")
    stage.run("--list").expect(0)


def test_restore__empty_archive(stage):
    stage.refuses(3, "--to-latest", words=["empty"])
    stage.refuses(3, "--list", words=["empty"])
    generation = stage.forge.generation()
    generation.claim(1, "11111111")
    stage.refuses(3, "--to-latest", words=["no complete snapshot"])
    gone = DirectoryArchive(stage.scene.path("missing"))
    folder = stage.scene.path("out")
    folder.mkdir()
    run_restore(gone, folder / "r.db").expect(3)
    assert not list(folder.iterdir())


# ---- the target ----

def test_restore__marker(stage):
    """restored.json says what the next start compares: the file's identity, the archive's end."""
    story, generation = simple(stage)
    commit = story.commits[3]
    result = stage.gives(commit, "--to-position",
                         f"{generation.id}/{commit.wal_no}/{commit.frame_no}")
    marker = json.loads((result.target.parent / "r.db-harvey" / "restored.json").read_text())
    stat = result.target.stat()
    end = story.commits[-1]

    def point(of):
        (wal_no, frame_no), (s1, s2) = point_of(story, of)
        return {"wal_no": wal_no, "frame_no": frame_no, "checksum": f"{s1:08x}{s2:08x}"}
    assert marker["archive"] == stage.archive.url
    assert marker["generation"] == marker["newest_generation"] == generation.id
    assert marker["point"] == point(commit) and marker["newest_end"] == point(end)
    assert marker["newest_term"] == 1
    assert (marker["inode"], marker["size_bytes"], marker["mtime_ns"]) == (
        str(stat.st_ino), stat.st_size, stat.st_mtime_ns)


def test_restore__spool_beside_the_target_is_told(stage):
    """The database file is gone, its spool is not: what lies there is not in the archive."""
    story, generation = simple(stage, commits=8, wals=1)
    last = generation.segments[-1]
    folder = stage.scene.path("out")
    spool = folder / "r.db-harvey" / "spool"
    path = spool / last
    path.parent.mkdir(parents=True)
    path.write_bytes(stage.archive.get(last))
    result = stage.run("--to-latest", target=folder / "r.db").expect(0)
    assert "spool" not in result.stderr
    (folder / "r.db").unlink()
    stage.archive.delete(last)
    result = stage.run("--to-latest", target=folder / "r.db").expect(0)
    assert "left out" in result.stderr and "spool" in result.stderr, result.describe()
    assert path.exists() and result.target.read_bytes() == story.commits[-2].data


# ---- what it says ----

def test_restore__summary_and_json(stage):
    story, generation = simple(stage)
    commit = story.commits[-1]
    text = f"{generation.id}/{commit.wal_no}/{commit.frame_no}"
    result = stage.run("--to-latest").expect(0)
    assert text in result.stdout and rfc3339(commit.unix_ms) in result.stdout
    assert not result.stderr
    told = stage.run("--to-latest", "--json").expect(0).json()
    assert told["ok"] and told["position"] == text and told["commit_unix_ms"] == commit.unix_ms
    assert told["database_bytes"] == len(commit.data) and told["left_out"] is None
    quiet = stage.run("--to-latest", "--quiet").expect(0)
    assert not quiet.text
    plan = stage.run("--to-latest", "--dry-run", "--json").expect(0)
    assert plan.json()["position"] == text and not plan.left_behind()
    assert plan.json()["objects"] == told["objects"]
    assert plan.json()["object_bytes"] == told["object_bytes"]
    wrong = stage.run("--to-position", f"{generation.id}/9/9", "--json").expect(4).json()
    assert not wrong["ok"] and wrong["error"]["code"] == "corrupt"
    assert wrong["last_good"]["position"] == text and text in wrong["last_good"]["command"]


def test_restore__list(stage):
    story, generation = simple(stage)
    incomplete = story.commits[2]
    generation.snapshot(incomplete.data, point_of(story, incomplete), BASE_UNIX_MS, complete=False)
    listing = stage.run("--list").expect(0)
    assert generation.id in listing.stdout and "latest" in listing.stdout
    assert "not complete" in listing.stdout
    tree = stage.run("--list", "--json").expect(0).json()
    one = tree["generations"][0]
    assert one["latest"] and one["end"]["kind"] == "clean"
    assert one["end"]["position"].endswith("/{}/{}".format(*story.commits[-1].position))
    assert [s["complete"] for s in one["snapshots"]] == [True, False]
    assert one["ranges"][0]["objects"] == len(generation.segments)


def test_restore__progress_on_a_terminal(stage):
    """A bar on a terminal, gone at the end; none in a pipe."""
    big(stage)
    folder = stage.scene.path("out")
    folder.mkdir()
    ours, theirs = os.openpty()
    process = subprocess.Popen(restore_argv(folder / "r.db", "--to-latest"), stderr=theirs,
                               stdout=subprocess.DEVNULL,
                               env=clean_environment(**stage.archive.environment()))
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0
    assert b"snapshot" in shown and shown.endswith(b"\r\x1b[K"), shown[-200:]
