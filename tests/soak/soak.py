#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what the tests show in minutes, shown for as long as somebody lets it run.

  soak.py rounds N    the kill-and-restore round of test_kill_restore.py N times, half on MinIO
  soak.py run S       one server at about 500 rows/s on MinIO for S seconds; every 30 s a restore
                      aside and a comparison; memory, WAL and spool watched

Seeds are printed (HARVEY_SEED=… repeats one), the first violation stops it and keeps everything.
`make soak N=… SECONDS=…` runs both.
"""

import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from harness import env, oracle  # noqa: E402
from harness.load import Ledger  # noqa: E402
from harness.minio import MinIO  # noqa: E402
from harness.scene import Scene  # noqa: E402
from test_kill_restore import Story  # noqa: E402

RATE = 500
EVERY_S = 30


def scene_of(name, seed, minio):
    folder = Path(tempfile.mkdtemp(prefix=f"harvey-soak-{name}-",
                                   dir=os.environ.get("HARVEY_TEST_DIR") or None))
    return Scene(folder, seed, lambda: minio)


def rounds(count, minio, seed):
    kinds = ["minio", "dir"] if minio else ["dir"]
    promised = lost = acknowledged = 0
    for kind in kinds:
        scene = scene_of(f"rounds-{kind}", seed, minio)
        story = Story(scene, kind)
        for number in range(-(-count // len(kinds))):
            try:
                story.round(number)
            except BaseException:
                print(f"HARVEY_SEED={seed}: violated in round {number} on {kind}; "
                      f"kept: {scene.dir}", flush=True)
                scene.end()
                raise
            tidy(scene)
            if number % 50 == 49:
                print(f"{kind}: {number + 1} rounds, {story.acknowledged} acknowledged, "
                      f"{story.promised} promised, 0 violations", flush=True)
        promised += story.promised
        lost += story.lost
        acknowledged += story.acknowledged
        scene.end()
        shutil.rmtree(scene.dir, ignore_errors=True)
    print(f"{count} rounds, seed {seed}: {acknowledged} acknowledged, {promised} promised, "
          f"{lost} lost beyond the promise, 0 violations", flush=True)


def tidy(scene):
    """What earlier rounds left aside is not needed any more."""
    scene.end()
    for path in scene.dir.glob("source-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in scene.dir.glob("server-*.log"):
        path.unlink()


def long_run(seconds, minio, seed):
    scene = scene_of("run", seed, minio)
    archive = scene.archive("minio" if minio else "dir")
    server = scene.server(archive, SHIP_INTERVAL_MS=100).start_ready()
    ledger = Ledger(path=scene.dir / "ledger.jsonl", sync_every=100)
    clients = 8
    load = scene.load(server, ledger, clients=clients, pause_s=clients / RATE).start()
    end = time.monotonic() + seconds
    checks, sizes = 0, []
    try:
        while time.monotonic() < end:
            time.sleep(min(EVERY_S, max(0.0, end - time.monotonic())))
            asked = time.monotonic()
            status = server.status()
            promised = asked - status["lag"]["ms"] / 1000
            result = scene.restore_aside(archive).expect(0)
            verdict = oracle.compare(oracle.read_rows(result.target), None, ledger, promised,
                                     f"check {checks}")
            shutil.rmtree(result.target.parent)
            checks += 1
            wal = Path(f"{scene.database}-wal").stat().st_size
            sizes.append((server.rss_bytes(), wal, status["spool"]["bytes"]))
            print(f"{checks}: {verdict.acknowledged} acknowledged, {verdict.promised} promised, "
                  f"restored {verdict.restored}, lag {status['lag']['ms']} ms "
                  f"(p99 {status['lag']['recent_ms']['p99']}), rss {sizes[-1][0] >> 20} MiB, "
                  f"wal {wal >> 20} MiB, spool {sizes[-1][2] >> 10} KiB", flush=True)
        load.stop()
        server.wait_archived()
        server.stop_clean()
        rows = oracle.read_rows(scene.restore_aside(archive).expect(0).target)
        assert oracle.compare(rows, scene.source(), ledger, time.monotonic(), "end").lost == 0
        broken = [error for _, error in ledger.errors]
        assert not broken, f"{len(broken)} requests failed: {broken[:3]}"
        if len(sizes) >= 8:
            early = max(rss for rss, _, _ in sizes[:len(sizes) // 4 + 1])
            late = max(rss for rss, _, _ in sizes[-len(sizes) // 4:])
            assert late < early * 1.25 + (8 << 20), f"memory grows: {early} to {late} bytes"
        assert max(wal for _, wal, _ in sizes) < 256 << 20, "the -wal is not bounded"
    except BaseException:
        print(f"HARVEY_SEED={seed}: violated; kept: {scene.dir}", flush=True)
        scene.end()
        raise
    scene.end()
    shutil.rmtree(scene.dir, ignore_errors=True)
    print(f"{seconds} s, {len(ledger.acks)} rows, {checks} restores compared, 0 violations",
          flush=True)


def with_minio(work):
    """work(seed, minio), with a MinIO of its own, or None where there is no binary of it."""
    seed = int(os.environ.get("HARVEY_SEED") or secrets.randbelow(10**9))
    print(f"HARVEY_SEED={seed}", flush=True)
    minio, folder = None, None
    if env.minio_binary():
        folder = Path(tempfile.mkdtemp(prefix="harvey-soak-minio-"))
        minio = MinIO(folder).start_ready()
    elif env.in_ci():
        sys.exit("no MinIO binary, and CI must run on it")
    else:
        print("no MinIO binary (minio/build.sh makes one): on a directory only", flush=True)
    try:
        work(seed, minio)
    finally:
        if minio:
            minio.stop()
            shutil.rmtree(folder, ignore_errors=True)


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in ("rounds", "run") or not arguments[1].isdigit():
        sys.exit(__doc__)
    what = rounds if arguments[0] == "rounds" else long_run
    with_minio(lambda seed, minio: what(int(arguments[1]), minio, seed))


if __name__ == "__main__":
    main(sys.argv[1:])
