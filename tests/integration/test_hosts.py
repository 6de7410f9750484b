# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one archive: each has a volume of its own, so no lock stands between them. The newest
generation is the history; the other host finds that out while it ships, stops taking rows and says so."""

from harness import oracle
from harness.load import Ledger


def test_hosts__the_older_history_steps_down(scene, archive):
    """A copy of the volume goes on as a generation of its own beside a server that still runs."""
    first = scene.server(archive).start_ready()
    ledger = Ledger()
    scene.rows(first, 30, ledger)
    first.wait_archived()
    generation = first.status()["generation"]
    copy = scene.copy_volume()
    before = scene.load(first, ledger, pause_s=0.02).start()
    second = scene.server(archive, database=copy / "state.db", ON_STALE=f"fork:{generation}")
    second.start_ready()
    forked = second.status()["generation"]
    assert forked > generation
    reason = first.wait_not_ready("HARVEY_ON_STALE")
    assert forked in reason
    before.stop()
    theirs = scene.rows(second, 20)
    second.wait_archived()
    second.stop_clean()
    first.stop_clean()

    latest = scene.restored_rows(archive)
    assert latest == oracle.source_rows(copy / "state.db", scene.path("source"))
    values = {value for _, value in latest}
    assert all(ack.payload in values for ack in theirs.acks)
    mine = [value for _, value in scene.source()]
    shared = [value for _, value in latest if value in set(mine)]
    assert mine[:len(shared)] == shared  # its own rows after the copy are in no other's history
    rows = [value for _, value in
            scene.restored_rows(archive, "--to-latest", "--generation", generation)]
    assert rows == mine[:len(rows)] and len(rows) >= len(shared)
