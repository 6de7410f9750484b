#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two hosts with one and the same volume, N times: a disk image is cloned bit by bit (inodes and all, as a
block device's snapshot is), and a server is started on each clone at the same moment.

  hosts.py N                needs root, for the loop mounts

Each round: one of them leads the generation on, the other is refused and says why (a claim with
If-None-Match decides); the archive then restores exactly the winner's rows. The winner's volume is the next
round's.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from harness import oracle  # noqa: E402
from soak import scene_of, with_minio  # noqa: E402

IMAGE_MIB = 48


class Volume:
    """An ext4 image and where it is mounted."""

    def __init__(self, scene, name):
        self.image = scene.dir / f"{name}.img"
        self.folder = scene.dir / name
        self.folder.mkdir()

    def make(self):
        with open(self.image, "wb") as out:
            out.truncate(IMAGE_MIB << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True)

    def kill(self):  # Scene.end calls it
        subprocess.run(["umount", "-l", self.folder], stderr=subprocess.DEVNULL)


def role_of(server):
    """"leader", or what a refused one says; None: not decided yet."""
    status = server.try_status()
    if status and status["ready"] and status["role"] == "leader" and status["archived"]:
        return "leader"
    if status and "HARVEY_ON_STALE" in (status["reason"] or ""):
        return status["reason"]
    return None


def race(servers, limit_s=60):
    """(winner, loser): both decided. What both serve before the claims met is told apart at the end."""
    deadline = time.monotonic() + limit_s
    number = 0
    while time.monotonic() < deadline:
        number += 1
        for server in servers:  # rows make them ship, and look
            try:
                server.request("POST", "/", body=f"{server.name} {number}", timeout_s=5)
            except OSError:
                pass
        refused = [server for server in servers if role_of(server) not in (None, "leader")]
        assert len(refused) < 2, f"both refused: {[role_of(server) for server in servers]}"
        if refused:
            loser = refused[0]
            return next(server for server in servers if server is not loser), loser
        time.sleep(0.02)
    raise AssertionError(f"no loser within {limit_s} s: {[server.status() for server in servers]}")


def main(count, seed, minio):
    scene = scene_of("hosts", seed, minio)
    archive = scene.archive("minio" if minio else "dir")
    volumes = [scene.also_end(Volume(scene, name)) for name in ("a", "b")]
    volumes[0].make()
    volumes[0].mount()
    first = scene.server(archive, database=volumes[0].folder / "state.db").start_ready()
    first.insert("the beginning")
    first.wait_archived()
    first.wait_snapshot()
    first.stop_clean()
    volumes[0].kill()
    wins = {"a": 0, "b": 0}
    for number in range(count):
        shutil.copyfile(volumes[0].image, volumes[1].image)
        servers = []
        for volume in volumes:
            volume.mount()
            servers.append(scene.server(archive, database=volume.folder / "state.db",
                                        name=f"{volume.folder.name}-{number}"))
        order = scene.random.sample(servers, 2)
        for server in order:
            server.start()
        winner, loser = race(servers)
        won = servers.index(winner)
        wins[volumes[won].folder.name] += 1
        winner.wait_ready()
        winner.insert(f"won {number}")
        winner.wait_archived()
        for server in servers:
            server.stop_clean()
        rows = scene.restored_rows(archive)
        mine = oracle.source_rows(winner.database, scene.path("source"))
        theirs = oracle.source_rows(loser.database, scene.path("source"))
        assert rows == mine, f"round {number}: the archive is not the winner's"
        alien = {value for _, value in theirs if value.startswith(loser.name)}
        assert not alien & {value for _, value in rows}, f"round {number}: histories are mixed"
        for volume in volumes:
            volume.kill()
        volumes[0].image, volumes[1].image = volumes[won].image, volumes[1 - won].image
        volumes[0].folder, volumes[1].folder = volumes[won].folder, volumes[1 - won].folder
        for pattern in ("source-*", "restored-*"):
            for path in scene.dir.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
        if number % 20 == 19:
            print(f"{number + 1} rounds, {wins}", flush=True)
    generations = archive.generation_ids()
    print(f"{count} rounds, seed {seed}: one winner each ({wins}), 0 mixed histories, "
          f"{len(generations)} generation(s)")
    scene.end()
    shutil.rmtree(scene.dir, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    with_minio(lambda seed, minio: main(int(sys.argv[1]), seed, minio))
