# SPDX-License-Identifier: Apache-2.0
"""Goal: a wall clock that jumps, by an hour or by ten years, forwards or back, breaks no order and no promise.

Method: host_faults.c shifts the wall clock of server and restore in mid-run (under load), between runs and
before a restore; what files were stamped with before a step stays. Order comes from generations, WALs and
frames; the times in the archive never go back; the lag is counted by clocks that nobody sets.
"""

import json
import subprocess
import time

import pytest

from harness import env, oracle
from harness.host import Faults
from harness.load import Ledger
from harness.process import clean_environment
from harness.restoring import Restored, restore_argv
from harness.server import position_of
from harness.wait import until

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="a preload does not go with a sanitizer")

HOUR, YEARS = 3600, 10 * 365 * 86400
NAMED = {"an_hour_on": HOUR, "an_hour_back": -HOUR, "ten_years_on": YEARS, "ten_years_back": -YEARS}


def steps(*quick):
    """All of them; those that are not named here take part in the slow suite alone."""
    return [pytest.param(step, id=name, marks=[] if name in quick else [pytest.mark.slow])
            for name, step in NAMED.items()]


class Story:
    """A server on a host whose clock is stepped; a directory archive."""

    def __init__(self, scene):
        self.scene = scene
        self.archive = scene.archive("dir")
        self.faults = Faults(scene)
        self.ledger = Ledger()

    def server(self, **settings):
        return self.faults.on(self.scene.server(self.archive, **settings))

    def restore(self):
        """On the volume, by the stepped clock: what it notes of the file is for the server to find."""
        argv = restore_argv(self.scene.database, "--to-latest")
        done = subprocess.run(argv, env=clean_environment(**self.archive.environment(),
                                                          **self.faults.variables()),
                              capture_output=True, text=True, check=False)
        return Restored(argv, done.returncode, done.stdout, done.stderr, self.scene.database)

    def rows_at(self, unix_s):
        """Rows of a restore to that time; None where the archive reaches back so far not."""
        result = self.scene.restore_aside(self.archive, "--to-time", rfc3339(unix_s))
        if result.code == 4:
            assert "as old as" in result.text or "no usable snapshot" in result.text, result.describe()
            return None
        return oracle.read_rows(result.expect(0).target)

    def births(self):
        return [json.loads(self.archive.get(key)) for key in self.archive.generations()]

    def check_stamps(self):
        """Times in the archive never go back in the order of the history."""
        last = 0
        for match in self.archive.segments():
            assert int(match["unix_ms"]) >= last, f"{match[0]} is older than the one before it"
            last = int(match["unix_ms"])


def rfc3339(unix_s):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(unix_s)))
    return f"{whole}.{int(unix_s * 1000) % 1000:03d}Z"


def check_sane(status, run_s, step_s=0):
    """No negative number, and no time that is longer than this test. A snapshot of a former run is as old
    as the clock says."""
    lag = status["lag"]
    assert lag["ms"] is None or 0 <= lag["ms"] <= run_s * 1000, status
    assert lag["frames"] >= 0 and lag["bytes"] >= 0, status
    assert 0 <= status["uptime_s"] <= run_s, status
    if status["snapshot"]:
        assert 0 <= status["snapshot"]["age_s"] <= run_s + max(step_s, 0), status


# ---- in mid-run ----
@pytest.mark.parametrize("step", steps("an_hour_back", "ten_years_on"))
def test_host_clock__steps_in_mid_run(scene, step):
    """Under load, there and back: lag, age and uptime stay sane in every status, one generation, and what
    a status promised is there when server and disk die."""
    began = time.monotonic()
    story = Story(scene)
    server = story.server().start_ready()
    server.wait_snapshot()
    load = scene.load(server, story.ledger, clients=3).start()
    sampler = scene.sampler(server)
    for seconds in (step, -step):
        load.wait_acks(30)
        story.faults.step_clock(seconds, [server])
        load.wait_acks(30)
        check_sane(server.status(), time.monotonic() - began + 1)
    count = sampler.samples
    until(lambda: sampler.samples > count, "one more status")
    server.kill()
    load.stop()
    sampler.stop()
    assert min(sampler.lags_ms) >= 0
    assert max(sampler.lags_ms) <= (time.monotonic() - began + 1) * 1000, "a lag by the wall clock"
    source = scene.source()
    rows = scene.restored_rows(story.archive)
    verdict = oracle.compare(rows, source, story.ledger, sampler.promised_before(), "after the steps")
    assert verdict.promised > 0
    story.check_stamps()
    server.start_ready()
    server.wait_leader()
    server.wait_archived()
    check_sane(server.status(), time.monotonic() - began + 1)
    server.stop_clean()
    assert len(story.births()) == 1


@pytest.mark.parametrize("step", steps("ten_years_back"))
def test_host_clock__steps_between_runs(scene, step):
    """Stopped or killed, then the clock jumps: the generation goes on, and nothing is taken for changed."""
    began = time.monotonic()
    story = Story(scene)
    server = story.server().start_ready()
    scene.rows(server, 20, story.ledger)
    server.wait_snapshot()
    server.wait_archived()
    generation = position_of(server.status())[0]
    for seconds, ends in ((step, server.stop_clean), (-step, server.kill), (step, server.kill)):
        ends()
        story.faults.step_clock(seconds)
        server.start_ready()
        status = server.wait_leader()
        assert status["generation"] == generation, server.log()
        check_sane(status, time.monotonic() - began + 1, abs(step))
        scene.rows(server, 10, story.ledger)
        server.wait_archived()
    server.stop_clean()
    assert len(story.births()) == 1
    story.check_stamps()
    rows = scene.restored_rows(story.archive)
    assert oracle.compare(rows, scene.source(), story.ledger, time.monotonic()).lost == 0


@pytest.mark.parametrize("step", [HOUR, pytest.param(YEARS, marks=pytest.mark.slow)],
                         ids=["an_hour", "ten_years"])
def test_host_clock__snapshots_go_on(scene, step):
    """A snapshot made in a future that was none: the next ones come as the interval says."""
    story = Story(scene)
    server = story.server(SNAPSHOT_INTERVAL_S=1).start_ready()
    server.insert("one")
    server.wait_snapshot()
    story.faults.step_clock(step, [server])
    before = server.status()["snapshot"]
    server.insert("two")
    after = server.wait_status(lambda s: where(s["snapshot"]) != where(before), "a snapshot")
    story.faults.step_clock(-step, [server])
    server.insert("three")
    server.wait_status(lambda s: where(s["snapshot"]) != where(after["snapshot"]), "one more")
    check_sane(server.status(), 600)
    server.stop_clean()


def where(snapshot):
    return snapshot["wal_no"], snapshot["frame_no"]


# ---- restores to a time ----
def check_times(story, moments, wanted):
    """A later time gives the same rows or more of them; each of `wanted` (time, rows) exactly."""
    last = []
    for moment in sorted(moments):
        rows = story.rows_at(moment)
        if rows is None:
            assert not last, f"{rfc3339(moment)} gives nothing, an earlier time gave {len(last)} rows"
            continue
        assert rows[:len(last)] == last, f"{rfc3339(moment)}: {len(rows)} rows, before {len(last)}"
        last = rows
    for moment, count in wanted:
        rows = story.rows_at(moment)
        assert rows is not None and len(rows) == count, (
            f"{rfc3339(moment)} gives {rows and len(rows)} rows, {count} were there then")


def three_rows(story, server, moments):
    """Three rows, archived, and the moment after them by the stepped clock."""
    before = server.status()["local"]
    for _ in range(3):
        server.insert(f"row {len(moments)}")
    # the position is told once for each pass, the lag at once: rows may be archived before it is told
    server.wait_status(lambda s: s["local"] != before, "the rows' position")
    server.wait_archived()
    moments.append(story.faults.now_unix_s())
    mark = time.monotonic()
    until(lambda: time.monotonic() - mark > 0.01, "another millisecond")


@pytest.mark.parametrize("step", steps("an_hour_back"))
def test_host_clock__restore_to_a_time_around_a_step(scene, step):
    """A snapshot after a step back holds rows that are stamped later than the clock showed: it is no base
    for an earlier time. A time before the step gives what was there then."""
    story = Story(scene)
    server = story.server().start_ready()
    server.wait_snapshot()
    moments = [story.faults.now_unix_s()]
    three_rows(story, server, moments)   # 3 rows at moments[1]
    three_rows(story, server, moments)   # 6 rows at moments[2]
    story.faults.step_clock(step, [server])
    three_rows(story, server, moments)
    server.stop_clean()
    server.start_ready(SNAPSHOT_INTERVAL_S=1)  # a snapshot in the stepped time
    first = server.status()["snapshot"]
    three_rows(story, server, moments)
    server.wait_status(lambda s: where(s["snapshot"]) != where(first), "a snapshot after the step")
    server.wait_archived()
    server.stop_clean()
    middle = [moment + step / 2 for moment in moments[:2]]
    check_times(story, moments + middle + [moments[2] + abs(step) + 60], [
        (moments[1], 3), (moments[2] + abs(step) + 60, 12),
        *([(moments[2], 6)] if step > 0 else [])])  # a step back makes the time stand still there
    assert len(scene.restored_rows(story.archive)) == 12


@pytest.mark.parametrize("step", steps("an_hour_back"))
def test_host_clock__generations_across_a_step(scene, step):
    """Restored and gone on after a step: the new generation's times do not lie before its parent's."""
    story = Story(scene)
    server = story.server().start_ready()
    server.wait_snapshot()
    moments = [story.faults.now_unix_s()]
    three_rows(story, server, moments)
    three_rows(story, server, moments)
    server.stop_clean()
    scene.wipe()
    story.faults.step_clock(step)
    result = story.restore().expect(0)
    assert result.positions()
    server.start_ready()
    server.wait_snapshot()
    three_rows(story, server, moments)
    server.stop_clean()
    births = story.births()
    assert len(births) == 2
    story.check_stamps()
    middle = [moment + step / 2 for moment in moments[:2]]
    check_times(story, moments + middle + [moments[2] + abs(step) + 60],
                [(moments[1], 3), (moments[2] + abs(step) + 60, 9)])
    assert len(scene.restored_rows(story.archive)) == 9


# ---- a boot with a wrong clock ----
@pytest.mark.parametrize("step", steps("an_hour_back"))
def test_host_clock__no_false_promise_after_a_boot(scene, step):
    """Rows that only the -wal holds, a power cut, and a clock that is wrong after it: while they are not
    archived no status promises them."""
    story = Story(scene)
    server = story.server().start_ready()
    server.insert("archived")
    server.wait_snapshot()
    server.wait_archived()
    story.archive.break_off()
    scene.rows(server, 10, story.ledger)
    server.kill()
    forget_boot(scene)
    story.faults.step_clock(step)
    server.start_ready()
    for _ in range(20):
        asked = time.monotonic()
        lag_ms = server.status()["lag"]["ms"]
        assert lag_ms is None or asked - lag_ms / 1000 <= story.ledger.acks[0].acknowledged, (
            f"a lag of {lag_ms} ms promises a row of {asked - story.ledger.acks[0].acknowledged:.3f} s "
            "ago, and the archive is away")
    story.archive.mend()
    server.wait_archived()
    check_sane(server.status(), 600, step)
    server.stop_clean()
    rows = scene.restored_rows(story.archive)
    assert oracle.compare(rows, scene.source(), story.ledger, time.monotonic()).lost == 0


def forget_boot(scene):
    """The state's mapped part is of another boot now."""
    path = scene.volume / "state.db-harvey" / "state"
    boot_id = open("/proc/sys/kernel/random/boot_id", encoding="ascii").read().strip().encode()
    data = path.read_bytes()
    assert boot_id in data, "the state's mapped part names the boot"
    path.write_bytes(data.replace(boot_id, b"0" * len(boot_id)))
