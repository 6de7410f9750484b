# SPDX-License-Identifier: Apache-2.0
"""Goal: a real MinIO that is killed under load, has no room, or knows our credentials no more costs no
row, says so in the status, and is gone on with by itself.

Method: a MinIO of the test's own. Its killings at the end of a load that is compared row by row; its
disk a small filesystem that a ballast fills (root); its credentials those of its next start.
test_restart.py kills it too and looks at the lag meanwhile.
"""

import os
import secrets
import subprocess

import pytest

from harness import env, oracle
from harness.archive import BucketArchive
from harness.load import Ledger
from harness.minio import MinIO
from harness.wait import until


def compare(scene, server, archive, ledger):
    """Everything that was acknowledged is in the restored copy, which is the source's."""
    server.wait_archived()
    server.stop_clean()
    rows = oracle.read_rows(scene.source_copy())
    assert scene.restored_rows(archive) == rows
    values = {value for _, value in rows}
    assert not [ack for ack in ledger.acks if ack.payload not in values]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [25])
def test_store_minio__killed_again_and_again(scene, kills):
    """kill -9 at a random moment of an upload, and a new start; the generation goes on."""
    archive = BucketArchive(scene.minio())
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    generation = server.wait_snapshot()["generation"]
    ledger = Ledger()
    load = scene.load(server, ledger, clients=4).start()
    for _ in range(kills):
        load.wait_acks(scene.random.randint(1, 60))
        archive.minio.kill()
        load.wait_acks(scene.random.randint(1, 60))
        archive.minio.start_ready()
    load.stop()
    compare(scene, server, archive, ledger)
    assert archive.generation_ids() == [generation]
    assert not [error for _, error in ledger.errors if error.startswith("5")], ledger.errors[:3]


def test_store_minio__its_credentials_are_changed(scene):
    """The old ones are refused: said, red, nothing lost, no busy loop. With the old ones valid again it
    goes on unaided; a server that is started with the new ones goes on too."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    server = scene.server(archive).start_ready()
    generation = server.wait_snapshot()["generation"]
    ledger = scene.rows(server, 20)
    server.wait_archived()
    old = archive.environment()
    first_secret = minio.secret_key

    def change(secret):
        minio.kill()
        minio.secret_key = secret
        minio.s3.secret_key = secret
        minio.start_ready()
    change(secrets.token_hex(16))
    scene.rows(server, 20, ledger)
    status = server.wait_status(
        lambda s: s["store"]["state"] == "down" and s["store"]["error"] and
        "secret access key" in s["store"]["error"], "the refusal to show")
    assert minio.secret_key not in str(status) and first_secret not in str(status) + server.log()
    assert server.readyz().code == 200
    change(first_secret)
    server.wait_archived()
    change(secrets.token_hex(16))
    scene.rows(server, 20, ledger)
    server.wait_status(lambda s: s["store"]["state"] == "down", "the second refusal to show")
    server.kill()
    archive.environment = lambda: old
    assert server.start().wait() == 6, server.log()[-2000:]  # told where a person sees it
    del archive.environment
    server.start_ready()
    scene.rows(server, 20, ledger)
    assert server.wait_archived()["generation"] == generation
    compare(scene, server, archive, ledger)


class Mounted:
    """An archive whose credentials the server has from files."""

    def __init__(self, scene):
        self.minio = scene.minio()
        self.archive = BucketArchive(self.minio)
        self.files = {"HARVEY_S3_ACCESS_KEY_ID": scene.path("key"),
                      "HARVEY_S3_SECRET_ACCESS_KEY": scene.path("secret")}
        plain = self.archive.environment()
        self.archive.environment = lambda: {
            **{name: value for name, value in plain.items() if name not in self.files},
            **{f"{name}_FILE": path for name, path in self.files.items()}}
        self.mount()

    def mount(self):
        """One after the other: for a moment they are of two pairs."""
        self.files["HARVEY_S3_ACCESS_KEY_ID"].write_text(self.minio.access_key + "\n")
        self.files["HARVEY_S3_SECRET_ACCESS_KEY"].write_text(self.minio.secret_key + "\n")

    def change(self):
        """The store's, not the files."""
        self.minio.kill()
        self.minio.access_key = self.minio.s3.access_key = secrets.token_hex(8)
        self.minio.secret_key = self.minio.s3.secret_key = secrets.token_hex(16)
        self.minio.start_ready()


def test_store_minio__a_mounted_secret_is_changed(scene):
    """HARVEY_S3_…_FILE under a running server: the refusal shows, and the new files end it."""
    mounted = Mounted(scene)
    server = scene.server(mounted.archive).start_ready()
    generation = server.wait_snapshot()["generation"]
    ledger = scene.rows(server, 20)
    server.wait_archived()
    mounted.change()
    scene.rows(server, 20, ledger)
    refused = server.wait_status(lambda s: s["store"]["state"] == "down", "the refusal to show")
    mounted.files["HARVEY_S3_SECRET_ACCESS_KEY"].write_text("\n")  # no secret: what was there stays
    asked = refused["counters"]["store_requests"]
    server.wait_status(lambda s: s["counters"]["store_requests"] > asked + 1
                       and s["store"]["state"] == "down", "it to be refused again")
    mounted.mount()
    assert server.wait_archived()["generation"] == generation
    assert not server.status()["alarm"]
    assert mounted.minio.secret_key not in server.log(whole=True)
    compare(scene, server, mounted.archive, ledger)


def test_store_minio__a_mounted_secret_is_changed_before_a_restore(scene):
    """A server that waits for the store has the old ones in its memory; its restore opens the store anew."""
    mounted = Mounted(scene)
    server = scene.server(mounted.archive).start_ready()
    server.wait_snapshot()
    ledger = scene.rows(server, 20)
    server.wait_archived()
    server.stop_clean()
    rows = len(scene.source())
    scene.wipe()
    mounted.minio.kill()
    server.start(ON_EMPTY="restore")
    server.wait_not_ready("127.0.0.1")
    mounted.change()
    mounted.mount()
    server.wait_ready()
    assert server.status()["rows"] == rows > 0
    compare(scene, server, mounted.archive, ledger)


@pytest.fixture
def small_minio(scene):
    """A MinIO whose disk is a filesystem of 160 MB. Gives (minio, its folder)."""
    if os.geteuid() != 0:
        env.cannot_run("mounting a small filesystem needs root")
    folder = scene.path("small")
    folder.mkdir()
    done = subprocess.run([env.tool("mount"), "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        env.cannot_run(f"no small filesystem here: {done.stderr.strip()}")
    minio = MinIO(folder / "minio")
    scene.also_end(minio)
    yield minio.start_ready(), folder
    scene.end()
    subprocess.run([env.tool("umount"), "-l", folder], check=True)


@pytest.mark.root
def test_store_minio__its_disk_is_full(scene, small_minio):
    """507, or whatever it answers without room: rows are taken all the time, and when there is room
    again all of them leave."""
    minio, folder = small_minio
    archive = BucketArchive(minio)
    server = scene.server(archive).start_ready()
    generation = server.wait_snapshot()["generation"]
    ledger = Ledger()
    load = scene.load(server, ledger, clients=3).start()
    load.wait_acks(30)
    ballast = folder / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    server.wait_status(lambda s: s["store"]["state"] == "down", "the full disk to show")
    assert "full" in server.status()["store"]["error"].lower(), server.status()["store"]
    load.wait_acks(100)
    ballast.unlink()
    until(lambda: server.status()["store"]["state"] == "ok", "the store to be well again")
    load.stop()
    compare(scene, server, archive, ledger)
    assert archive.generation_ids() == [generation]
