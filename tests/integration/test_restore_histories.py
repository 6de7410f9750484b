# SPDX-License-Identifier: Apache-2.0
"""Goal: a restore never gives commits of a history that another one has overridden, or of one of two
between which nobody has chosen, and never ends early in silence because a birth is lost.

Method: as in test_restore.py: no server; archives with several generations, and generations with
several leads, are laid out from real databases' stories.
"""

import random

from harness.forge import BASE_UNIX_MS, Story, cut_at_commits, point_of
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


def lists_as_lost(stage, *generations):
    told = stage.run("--list", "--json").expect(0).json()["lost_births"]
    assert told == [generation.id for generation in generations], told
    text = stage.run("--list").expect(0).stdout
    for generation in generations:
        assert f"LOST: the birth of generation {generation.id}" in text, text


def test_restore_histories__a_lost_birth_in_the_middle(stage):
    """Its time would be given the end of the generation before it."""
    (story, one), (later, two), (last, three) = three_in_a_row(stage)
    lists_as_lost(stage)
    stage.archive.delete(birth_key(2))
    words = [two.id, "birth is missing", f"--generation {three.id}"]
    stage.refuses(4, "--to-time", rfc3339(later.commits[2].unix_ms), words=words)
    stage.refuses(4, "--to-latest", words=words)
    lists_as_lost(stage, two)
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
    lists_as_lost(stage)


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
