# SPDX-License-Identifier: Apache-2.0
"""The README's disaster story, typed as a user types it, against real containers (both compose
flavours, where they are installed) and natively; the rows compared with an outside ledger."""

import sqlite3
import stat
import subprocess
import uuid

import pytest


def values_of(path):
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as db:
        return [value for (value,) in db.execute("SELECT value FROM test ORDER BY id")]


@pytest.mark.native_too
def test_story(project):
    bystander = f"{project.name}-bystander"
    if project.compose_cmd:
        subprocess.run(["docker", "volume", "create", bystander], check=True, capture_output=True)
    try:
        play_the_story(project)
        if project.compose_cmd:
            subprocess.run(["docker", "volume", "inspect", bystander], check=True, capture_output=True)
    finally:
        if project.compose_cmd:
            subprocess.run(["docker", "volume", "rm", bystander], capture_output=True)


def play_the_story(project):
    up = project.make("up")
    for command in ("make hammer", "make status", "make disaster", "./restore --to-latest"):
        assert command in up.stdout

    ledger = [f"row {n} {uuid.uuid4()}" for n in range(100)]
    project.write(ledger)
    assert "rows written: " in project.make("hammer").stdout
    before = project.settle()
    assert before["rows"] > len(ledger)
    assert f"Total rows: {before['rows']}" in project.make("status").stdout

    assert "./restore --to-latest" in project.make("disaster").stdout
    assert project.make("status", ok=False).returncode != 0

    refused = project.make("up", ok=False)
    assert refused.returncode != 0
    assert "./restore --to-latest" in refused.stdout
    assert project.request("/", "must not be taken")[0] == 503

    project.run("./restore", "--to-latest")
    project.make("up")
    assert f"Total rows: {before['rows']}" in project.make("status").stdout

    project.write(["after the restore"])
    project.settle()
    project.run("./restore", "--to-latest", "-o", "copy.db")
    values = values_of(project.dir / "copy.db")
    assert values[:len(ledger)] == ledger
    assert values[-1] == "after the restore"
    assert len(values) == before["rows"] + 1

    # The other order: no server is up while ./restore runs, and it says so.
    project.make("disaster")
    assert "make up" in project.run("./restore", "--to-latest").stdout
    project.make("up")
    assert project.status()["rows"] == before["rows"] + 1


def test_down_with_volumes_keeps_the_backup(project):
    project.make("up")
    project.write(["kept"])
    project.settle()
    project.run(*project.compose_cmd.split(), "-f", "compose/compose.yaml", "down", "-v")
    assert project.make("up", ok=False).returncode != 0
    project.make("restore")
    assert project.status()["rows"] == 1


def test_the_launcher_passes_exit_statuses_through(project):
    project.make("up")
    project.write(["one"])
    project.settle()
    assert project.run("./restore", "--to-latest", ok=False).returncode == 5
    assert project.run("./restore", "--no-such-option", ok=False).returncode == 2
    project.run("./restore", "--list")


def test_another_file_replaces_the_stack_and_keeps_its_volumes(project):
    project.make("up")
    project.write(["of the default stack"])
    project.settle()
    project.make("up", COMPOSE="naive")
    # The same data volume, now without a backup; and back, by the default's older name.
    assert project.status()["rows"] == 1
    assert project.status()["store"]["state"] == "off"
    project.make("up", COMPOSE="docker-compose.litestream.yaml")
    assert project.status()["rows"] == 1


def test_secrets_are_random_and_private(project):
    project.make("up")
    folder = project.dir / "compose" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    texts = {path.read_text() for path in folder.iterdir()}
    assert len(texts) == 2 and all(len(text) == 32 for text in texts)
    inspected = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"label=com.docker.compose.project={project.name}"],
        capture_output=True, text=True, check=True).stdout.split()
    shown = subprocess.run(["docker", "inspect", *inspected], capture_output=True, text=True, check=True)
    logs = project.run(*project.compose_cmd.split(), "-f", "compose/compose.yaml", "logs").stdout
    assert not any(text in shown.stdout or text in logs for text in texts)


def test_release_serves_again_after_each_round(project):
    project.make("up")
    project.write(["before"])
    project.make("release", N="2")
    assert project.status()["rows"] == 1
    refused = project.make("rolling-release", ok=False, N="1")
    assert refused.returncode != 0 and "make release" in refused.stdout
