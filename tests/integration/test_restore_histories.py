# SPDX-License-Identifier: Apache-2.0
"""Goal: a restore never gives commits of a history that another one has overridden, or of one of two
between which nobody has chosen, and never ends early in silence because a birth is lost.

Method: as in test_restore.py: no server; archives with several generations, and generations with
several leads, are laid out from real databases' stories.
"""

import random
import shutil
import sqlite3
from pathlib import Path

from harness.forge import BASE_UNIX_MS, Story, Wal, cut_at_commits, point_of
from harness.restoring import rfc3339
from harness.stage import lively, simple

MINUTE_MS = 60000


def goes_on(stage, number, parent, story, commit, begin_ms, snapshot=True, **birth):
    """A generation that begins at a commit of its parent and writes four more. (story, generation)"""
    later = Story(stage.scene.path("story"), base=commit.data, unix_ms=begin_ms)
    lively(later, random.Random(100 + number), 4).end()
    generation = stage.forge.generation(number=number, tail=number, parent=parent.id, cause="restored",
                                        parent_point=point_of(story, commit), unix_ms=begin_ms,
                                        **birth)
    generation.ship(later, cut_at_commits())
    if snapshot:
        generation.snapshot(commit.data, ((1, 0), (0, 0)), begin_ms)
    return later, generation


def snapshot_at(generation, story, number):
    commit = story.commits[number]
    generation.snapshot(commit.data, point_of(story, commit), commit.unix_ms, tag=f"{number:08x}")


# ---- a generation that has no snapshot yet at the time that is asked for ----

def test_restore_histories__a_snapshot_behind_the_place_where_history_went_on(stage):
    """The overridden tail of the parent holds a snapshot: it is not the base of anything."""
    story, one = simple(stage, commits=9, wals=1, seed=14)
    snapshot_at(one, story, 9)
    moment = story.unix_ms + MINUTE_MS
    _, two = goes_on(stage, 2, one, story, story.commits[4], moment, snapshot=False)
    result = stage.gives(story.commits[4], "--to-time", rfc3339(moment + 5000))
    assert two.id in result.stderr
    stage.gives(story.commits[9], "--to-time", rfc3339(moment - 1))
    one.snapshot(story.commits[4].data, point_of(story, story.commits[4]),
                 story.commits[4].unix_ms, tag="00000004")
    stage.gives(story.commits[4], "--to-time", rfc3339(moment + 5000))


def test_restore_histories__only_a_snapshot_behind_that_place(stage):
    """Then the generation cannot serve, and the one before it may."""
    story, one = simple(stage, commits=6, wals=1, seed=14)
    later, two = goes_on(stage, 2, one, story, story.commits[4], story.unix_ms + MINUTE_MS,
                         snapshot=False)
    snapshot_at(two, later, 3)
    moment = later.unix_ms + MINUTE_MS
    goes_on(stage, 3, two, later, later.commits[1], moment, snapshot=False)
    stage.gives(story.commits[4], "--to-time", rfc3339(moment + 5000))
    stage.gives(later.commits[-1], "--to-time", rfc3339(moment - 1))


def test_restore_histories__an_overridden_generation_does_not_come_back(stage):
    """3 overrides 2 and goes on from 1; until 3 has a snapshot, 1 is what it had, and never 2."""
    story, one = simple(stage, commits=6, wals=1, seed=11)
    later, two = goes_on(stage, 2, one, story, story.commits[-1], story.unix_ms + MINUTE_MS)
    moment = later.unix_ms + MINUTE_MS
    _, three = goes_on(stage, 3, one, story, story.commits[3], moment, snapshot=False,
                       supersedes=[one.id, two.id])
    result = stage.gives(story.commits[3], "--to-time", rfc3339(moment + 5000))
    assert three.id in result.stderr
    stage.gives(later.commits[-1], "--to-time", rfc3339(moment - 1))


def test_restore_histories__nobody_has_chosen_and_the_newer_has_no_snapshot(stage):
    """2 and 3 go on from 1: that 3 cannot be restored yet does not settle it."""
    story, one = simple(stage, commits=6, wals=1, seed=11)
    later, two = goes_on(stage, 2, one, story, story.commits[-1], story.unix_ms + MINUTE_MS)
    moment = later.unix_ms + MINUTE_MS
    _, three = goes_on(stage, 3, one, story, story.commits[-1], moment, snapshot=False)
    stage.refuses(4, "--to-time", rfc3339(moment + 5000),
                  words=[f"--generation {two.id}", three.id])
    stage.gives(later.commits[-1], "--to-time", rfc3339(moment - 1))


def test_restore_histories__a_start_that_came_to_nothing_is_no_history(stage):
    """A generation without parent and snapshot, and a newer one beside it that has one."""
    nothing = stage.forge.generation(number=1, tail=1)
    nothing.claim(1, "11111111")
    story = lively(stage.story(), random.Random(5), 4).end()
    two = stage.forge.generation(number=2, tail=2, unix_ms=BASE_UNIX_MS)
    two.ship(story, cut_at_commits())
    two.snapshot(story.commits[0].data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    stage.gives(story.commits[-1], "--to-time", rfc3339(story.unix_ms + 1))


def test_restore_histories__overridden_without_a_parent(stage):
    """HARVEY_ON_EMPTY=new: the old history ended there, and the new one has nothing to show yet."""
    story, one = simple(stage, commits=6, wals=1, seed=11)
    moment = story.unix_ms + MINUTE_MS
    two = stage.forge.generation(number=2, tail=2, supersedes=[one.id], cause="fork", unix_ms=moment)
    stage.refuses(4, "--to-time", rfc3339(moment), words=[two.id, "first snapshot is later"])
    stage.gives(story.commits[-1], "--to-time", rfc3339(moment - 1))


# ---- births that are lost ----

def three_in_a_row(stage):
    """1, 2 that goes on from its end, 3 that goes on from 2's: [(story, generation)]."""
    story, one = simple(stage, commits=6, wals=1, seed=11)
    later, two = goes_on(stage, 2, one, story, story.commits[-1], story.unix_ms + MINUTE_MS)
    last, three = goes_on(stage, 3, two, later, later.commits[-1], later.unix_ms + MINUTE_MS)
    return (story, one), (later, two), (last, three)


def birth_key(number):
    return f"generations/{number:08d}.json"


def lists_as_lost(stage, *generations, latest=None):
    """With `latest` no question is open about what is the latest, and the list says so."""
    tree = stage.run("--list", "--json").expect(0).json()
    assert tree["lost_births"] == [generation.id for generation in generations], tree
    assert [one["generation"] for one in tree["generations"] if one["latest"]] == (
        [latest.id] if latest else []), tree
    assert bool(tree["lost_births_open"]) == (bool(generations) and latest is None), tree
    text = stage.run("--list").expect(0).stdout
    needs = "--to-time needs" if latest else "--to-latest and --to-time need"
    for generation in generations:
        assert f"LOST: the birth of generation {generation.id}; {needs} --generation" in text, text


def test_restore_histories__a_lost_birth_in_the_middle(stage):
    """Its time would be given the end of the generation before it."""
    (story, one), (later, two), (last, three) = three_in_a_row(stage)
    lists_as_lost(stage, latest=three)
    stage.archive.delete(birth_key(2))
    words = [two.id, "birth is missing", f"--generation {three.id}"]
    stage.refuses(4, "--to-time", rfc3339(later.commits[2].unix_ms), words=words)
    stage.gives(last.commits[-1], "--to-latest")  # 3 says that it goes on from 2: no question is open
    lists_as_lost(stage, two, latest=three)
    stage.gives(later.commits[2], "--to-time", rfc3339(later.commits[2].unix_ms), "--generation", two.id)
    stage.gives(last.commits[-1], "--to-latest", "--generation", three.id)
    stage.gives(story.commits[-1], "--to-latest", "--generation", one.id)


def test_restore_histories__a_lost_birth_hides_no_fork(stage):
    story, one = simple(stage, commits=6, wals=1, seed=11)
    end = story.commits[-1]
    _, two = goes_on(stage, 2, one, story, end, story.unix_ms + MINUTE_MS)
    _, three = goes_on(stage, 3, one, story, end, story.unix_ms + 2 * MINUTE_MS)
    words = [f"--generation {two.id}", f"--generation {three.id}"]
    stage.refuses(4, "--to-latest", words=words)
    stage.archive.delete(birth_key(2))
    stage.refuses(4, "--to-latest", words=words)
    lists_as_lost(stage, two)


def test_restore_histories__a_fork_is_listed_beside_a_lost_birth(stage):
    story, one = simple(stage, commits=6, wals=1, seed=11)
    end = story.commits[-1]
    forked = [goes_on(stage, number, one, story, end, story.unix_ms + number * MINUTE_MS)
              for number in (2, 3)]
    _, four = goes_on(stage, 4, one, story, end, story.unix_ms + 4 * MINUTE_MS)
    stage.archive.delete(birth_key(4))
    lists_as_lost(stage, four)
    tree = stage.run("--list", "--json").expect(0).json()
    assert tree["fork"] == [generation.id for _, generation in forked]
    assert [one["latest"] for one in tree["generations"]] == [False] * 4


def test_restore_histories__many_births_are_lost(stage):
    """Also the first, and two in a row."""
    parts = three_in_a_row(stage)
    generations = [generation for _, generation in parts]
    stage.archive.delete(birth_key(1))
    stage.archive.delete(birth_key(2))
    stage.refuses(4, "--to-latest", words=[f"--generation {one.id}" for one in generations])
    lists_as_lost(stage, *generations[:2])
    stage.archive.delete(birth_key(3))
    stage.refuses(4, "--to-latest", words=[f"--generation {one.id}" for one in generations])
    lists_as_lost(stage, *generations)
    stage.refuses(3, "--list", "--generation", "00000007-0123456789abcdef", words=["no generation"])
    for story, generation in parts:
        listing = stage.run("--list", "--generation", generation.id).expect(0)
        assert f"restorable to {generation.id}/" in listing.stdout, listing.describe()
        stage.gives(story.commits[-1], "--to-latest", "--generation", generation.id)


def test_restore_histories__a_lost_birth_beside_a_damaged_one(stage):
    """Each is told as what it is."""
    _, (_, two), (_, three) = three_in_a_row(stage)
    stage.archive.delete(birth_key(2))
    stage.archive.put(birth_key(3), b"{")
    lists_as_lost(stage, two)
    listing = stage.run("--list").expect(0)
    assert "DAMAGED: 1 birth" in listing.stdout and three.id not in listing.stdout


def test_restore_histories__a_number_that_nobody_used_is_no_loss(stage):
    """A generation that was noted and never put leaves a number out; its successor names it."""
    story, one = simple(stage, commits=6, wals=1, seed=11)
    noted = "00000002-00000000000000aa"
    later, three = goes_on(stage, 3, one, story, story.commits[-1], story.unix_ms + MINUTE_MS,
                           supersedes=[noted])
    result = stage.gives(later.commits[-1], "--to-latest")
    assert not result.stderr
    result = stage.gives(story.commits[-1], "--to-time", rfc3339(story.unix_ms + 5000))
    assert not result.stderr
    lists_as_lost(stage, latest=three)


def test_restore_histories__a_generation_that_is_gone_as_a_whole(stage):
    """Nothing of it can be had, and that it may have been live is said; nobody else misses it."""
    (story, one), (later, two), (last, three) = three_in_a_row(stage)
    for key in list(stage.archive.keys()):
        if key.startswith((two.id, birth_key(2))):
            stage.archive.delete(key)
    result = stage.gives(last.commits[-1], "--to-latest")
    assert not result.stderr
    result = stage.gives(story.commits[-1], "--to-time", rfc3339(later.commits[2].unix_ms))
    assert two.id in result.stderr, result.describe()


# ---- two histories inside one generation ----

class Twin:
    """A second life of a story's database from here on, in the same WAL: what a copied volume makes."""

    def __init__(self, stage, story):
        folder = stage.scene.path("twin")
        folder.mkdir()
        self.path = folder / "app.db"
        shutil.copyfile(story.path, self.path)
        shutil.copyfile(f"{story.path}-wal", f"{self.path}-wal")
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute("PRAGMA cache_spill=OFF")

    def insert(self, text):
        self.db.execute("INSERT INTO test(value) VALUES(?)", (text,))

    def wal(self):
        return Wal(Path(f"{self.path}-wal").read_bytes())


def forked_inside(stage, snapshot_at_the_end=False, later_ms=0):
    """Lead 1 ships all of a story, nine commits; lead 2 goes on from the fourth and ships what it wrote
    itself. (story, generation)"""
    story = stage.story()
    for number in range(4):
        story.run(("INSERT INTO test(value) VALUES(?)", (f"both {number}",)))
    twin = Twin(stage, story)
    for number in range(5):
        story.run(("INSERT INTO test(value) VALUES(?)", (f"one {number}",)))
        twin.insert(f"two {number}")
    common = story.commits[4].frame_no
    wal = twin.wal()
    twin.db.close()
    story.end()
    generation = stage.forge.generation()
    generation.claim(1, "11111111")
    generation.ship(story, cut_at_commits())
    base = story.commits[0]
    generation.snapshot(base.data, point_of(story, base), base.unix_ms)
    generation.claim(2, "22222222", start=((1, common), wal.sums[common]))
    moment = story.commits[4].unix_ms + later_ms
    for frame_no in range(common + 1, len(wal.frames) + 1):
        moment += 10
        generation.segment(wal, 1, frame_no, frame_no, [(frame_no, moment)],
                           ((1, frame_no - 1), wal.sums[frame_no - 1]))
    if snapshot_at_the_end:
        end = len(wal.frames)
        generation.snapshot(story.commits[-1].data, ((1, end), wal.sums[end]), moment, tag="eeeeeeee")
    return story, generation


def last_good(result):
    return result.positions()[-1][1:]


def test_restore_histories__a_fork_inside_a_generation(stage):
    """Up to the fork there is one history; from there on no position and no time says which is meant."""
    story, generation = forked_inside(stage)
    fork = story.commits[4]
    listing = stage.run("--list").expect(0)
    assert "FORK" in listing.stdout
    assert last_good(stage.refuses(4, "--to-latest", words=["two histories"])) == fork.position
    for number, commit in enumerate(story.commits):
        position = f"{generation.id}/{commit.wal_no}/{commit.frame_no}"
        for options in (["--to-position", position], ["--to-time", rfc3339(commit.unix_ms)]):
            if number <= 4:
                stage.gives(commit, *options)
            else:
                result = stage.refuses(4, *options, words=["two histories"])
                assert last_good(result) == fork.position, result.describe()


def test_restore_histories__a_fork_that_one_side_began_later(stage):
    """At that time only the other side had written anything; what lies before the fork was not live."""
    story, _ = forked_inside(stage, later_ms=MINUTE_MS)
    stage.gives(story.commits[4], "--to-time", rfc3339(story.commits[5].unix_ms - 1))
    for commit in story.commits[5:]:
        result = stage.refuses(4, "--to-time", rfc3339(commit.unix_ms), words=["two histories"])
        assert last_good(result) == story.commits[4].position, result.describe()


def test_restore_histories__a_generation_that_began_before_a_fork(stage):
    """Which of the two was wanted does not matter to one that goes on from before both."""
    story, one = forked_inside(stage)
    _, two = goes_on(stage, 2, one, story, story.commits[4], story.unix_ms + MINUTE_MS, snapshot=False)
    result = stage.gives(story.commits[4], "--to-time", rfc3339(story.unix_ms + 2 * MINUTE_MS))
    assert two.id in result.stderr


def test_restore_histories__a_wal_that_was_reset_by_one_side_only(stage):
    """The other object begins a WAL behind a commit that the run goes on from: the fork is right there."""
    story = stage.story()
    for number in range(8):
        if number == 4:
            story.reset()
        story.run(("INSERT INTO test(value) VALUES(?)", (number,)))
    story.end()
    twin = stage.forge.generation()
    twin.ship(story, cut_at_commits())
    base = story.commits[0]
    twin.snapshot(base.data, point_of(story, base), base.unix_ms)
    cut = story.commits[2]
    stage.archive.delete(twin.segments[4])  # the first of WAL 2, put anew: it goes on from before the end
    twin.claim(2, "22222222")
    wal = story.wal(2)
    last = story.commits[5].frame_no
    twin.segment(wal, 2, 1, last, [(last, story.commits[5].unix_ms)], point_of(story, cut))
    for number, commit in enumerate(story.commits[:5]):
        position = f"{twin.id}/{commit.wal_no}/{commit.frame_no}"
        if number <= 2:
            stage.gives(commit, "--to-position", position)
        else:
            result = stage.refuses(4, "--to-position", position, words=["two histories"])
            assert last_good(result) == cut.position, result.describe()
    assert last_good(stage.refuses(4, "--to-latest", words=["two histories"])) == cut.position


def test_restore_histories__a_snapshot_behind_a_fork(stage):
    """It belongs to one of them: an older one is taken to name the last good position."""
    story, generation = forked_inside(stage, snapshot_at_the_end=True)
    fork = story.commits[4]
    end = story.commits[-1]
    for options in (["--to-latest"], ["--to-position", f"{generation.id}/1/{end.frame_no}"],
                    ["--to-time", rfc3339(end.unix_ms + 1000)]):
        result = stage.refuses(4, *options, words=["two histories"])
        assert last_good(result) == fork.position, result.describe()
    stage.gives(fork, "--to-position", f"{generation.id}/1/{fork.frame_no}")
    stage.archive.delete(next(key for key in stage.archive.keys()
                              if "0000000000-5a5a5a5a/complete.json" in key))
    stage.refuses(4, "--to-latest", words=["two histories", "no good position"])


def test_restore_histories__an_overlapping_object_that_cannot_be_read(stage):
    """It may hold another history; without it all is well again."""
    story, generation = simple(stage, commits=8, wals=1, seed=21)
    good = story.commits[3]
    wal = story.wal(1)
    first = good.frame_no + 1
    last = story.commits[5].frame_no
    generation.claim(2, "22222222", start=point_of(story, good))
    key = generation.segment(wal, 1, first, last, [(last, story.commits[5].unix_ms)],
                             ((1, good.frame_no), wal.sums[good.frame_no]))
    stage.gives(story.commits[-1], "--to-latest")
    stage.archive.put(key, b"x" * 100)
    stage.gives(good, "--to-position", f"{generation.id}/1/{good.frame_no}")
    for commit in story.commits[4:]:
        result = stage.gives(commit, "--to-position", f"{generation.id}/1/{commit.frame_no}")
        assert "cannot be read" in result.stderr, result.describe()
    result = stage.gives(story.commits[6], "--to-time", rfc3339(story.commits[6].unix_ms))
    assert "cannot be read" in result.stderr, result.describe()
    result = stage.refuses(4, "--to-latest", words=["cannot be read"])
    assert last_good(result) == story.commits[-1].position
    stage.archive.delete(key)
    stage.gives(story.commits[-1], "--to-latest")


# ---- what is said of the end ----

def test_restore_histories__the_last_good_position_is_verified(stage):
    """A hole near the end, and an object before it that looks good by its header: the position that is
    named can be had."""
    story, generation = simple(stage, commits=20, wals=1, seed=7)
    stage.archive.delete(generation.segments[6])
    position = story.commits[6].position
    assert last_good(stage.refuses(4, "--to-latest")) == position
    spoiled = generation.segments[4]
    data = bytearray(stage.archive.get(spoiled))
    data[-10] ^= 1
    stage.archive.put(spoiled, bytes(data))
    wanted = story.commits[8]
    for options in (["--to-latest"], ["--to-time", rfc3339(story.unix_ms)],
                    ["--to-position", f"{generation.id}/{wanted.wal_no}/{wanted.frame_no}"]):
        assert last_good(stage.refuses(4, *options)) == story.commits[4].position
    stage.gives(story.commits[4], "--to-position", "{}/{}/{}".format(generation.id, *story.commits[4].position))


def test_restore_histories__a_later_snapshot_says_that_the_end_is_none(stage):
    """All WAL objects from the fourth on are gone: what a complete snapshot covers was archived once."""
    story, generation = simple(stage, commits=12, wals=3, seed=7)
    last = len(story.commits) - 1
    snapshot_at(generation, story, last)
    for key in generation.segments[3:]:
        stage.archive.delete(key)
    for number in (3, 6, last - 1):
        result = stage.refuses(4, "--to-time", rfc3339(story.commits[number].unix_ms),
                               words=["are missing"])
        assert last_good(result) == story.commits[3].position, result.describe()
    stage.gives(story.commits[2], "--to-time", rfc3339(story.commits[2].unix_ms))
    stage.gives(story.commits[3], "--to-position", "{}/{}/{}".format(generation.id, *story.commits[3].position))


def test_restore_histories__nothing_is_restorable_without_a_complete_snapshot(stage):
    """The WAL is there to its end, and there is nothing that it could be laid upon."""
    story = lively(stage.story(), random.Random(5), 4).end()
    generation = stage.forge.generation()
    generation.ship(story, cut_at_commits())
    start = story.commits[0]
    folder = generation.snapshot(start.data, ((1, 0), (0, 0)), BASE_UNIX_MS, complete=False)
    listing = stage.run("--list").expect(0)
    assert "restorable to" not in listing.stdout and "no complete snapshot" in listing.stdout
    generation.snapshot(start.data, ((1, 0), (0, 0)), BASE_UNIX_MS)
    assert "restorable to" in stage.run("--list").expect(0).stdout
    stage.archive.put(f"{folder}/complete.json", b"{")
    assert "restorable to" not in stage.run("--list").expect(0).stdout
