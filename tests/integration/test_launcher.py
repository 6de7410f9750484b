# SPDX-License-Identifier: Apache-2.0
"""Goal: `./restore`, the launcher in the project's root, says to bin/restore what its caller said to it, and
ends as the table of exit statuses says, whatever is missing on the way to it.

Method: a copy of the launcher in a folder of its own; bin/restore, docker and compose are stubs that note
how they were called and answer what a file beside them says. With an engine: tests/compose/test_story.py.
"""

import re
import shutil
import subprocess

import pytest

from harness import env
from harness.process import clean_environment

STUB = """#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$@" >>"{log}"
echo '= end' >>"{log}"
case "$*" in {cases} esac
"""


class Launcher:
    """A project with stubs in it, called from a folder beside it."""

    def __init__(self, scene):
        self.root, self.caller = scene.path("project"), scene.path("caller")
        self.stubs, self.log = scene.path("stubs"), scene.path("log")
        for folder in (self.root, self.root / "bin", self.root / ".ci", self.caller, self.stubs):
            folder.mkdir()
        shutil.copy(env.ROOT / "restore", self.root)
        shutil.copytree(env.ROOT / "compose", self.root / "compose",
                        ignore=shutil.ignore_patterns("secrets"))
        (self.root / "compose" / "secrets").mkdir()
        for name in ("minio_access_key", "minio_secret_key"):
            (self.root / "compose" / "secrets" / name).write_text("key")
        self.stub(self.root / "bin" / "restore")
        self.stub(self.root / ".ci" / "deps", "*) echo 'run: sudo apt-get' >&2; exit 1 ;;")
        for name in ("sleep", "curl", "docker", "docker-compose"):
            self.stub(self.stubs / name)

    def stub(self, path, *cases):
        path.write_text(STUB.format(log=self.log, cases=" ".join(cases)))
        path.chmod(0o755)

    def compose(self, *docker_cases, services="minio restore server"):
        """The recorded stack is a compose one, and docker answers."""
        (self.root / ".harvey-stack").write_text(
            "stack=compose\nfile=compose/compose.yaml\nport=1\ncommand=docker compose\n")
        words = services.replace(" ", "\\n")
        self.stub(self.stubs / "docker", *docker_cases,
                  f"*'config --services') printf '{words}\\n' ;;",
                  "'ps -a'*) echo 'Up 3 seconds (healthy)' ;;")

    def run(self, *arguments):
        """(exit status, what it printed, the calls of stubs: [name, argument...] each)"""
        self.log.write_text("")
        done = subprocess.run([self.root / "restore", *arguments], cwd=self.caller, text=True,
                              capture_output=True, timeout=60, check=False,
                              env={**clean_environment(), "PATH": f"{self.stubs}:/usr/bin:/bin",
                                   "DOCKER_HOST": "unix:///nowhere"})  # no real engine, come what may
        calls = [call.splitlines() for call in self.log.read_text().split("= end\n")[:-1]]
        return done.returncode, done.stderr, calls

    def restores(self, *arguments):
        """What bin/restore, on this host or in a container, was told."""
        code, said, calls = self.run(*arguments)
        told = [call[call.index("restore") + 1:] for call in calls if "restore" in call]
        assert code == 0 and len(told) == 1, (code, said, calls)
        return told[0], calls

    def refuses(self, status, *arguments, words=()):
        code, said, calls = self.run(*arguments)
        assert code == status, (code, said, calls)
        assert not any("restore" in call for call in calls), calls
        assert all(word in said for word in words), said
        return said


@pytest.fixture
def launcher(scene):
    return Launcher(scene)


OUTPUTS = [["-o", "r.db"], ["-or.db"], ["--output", "r.db"], ["--output=r.db"], ["--out", "r.db"],
           ["--o=r.db"], ["--outpu", "r.db"], ["-o", "no.db", "--out=r.db"]]


@pytest.mark.parametrize("output", OUTPUTS, ids=" ".join)
def test_launcher__the_file_is_the_callers(launcher, output):
    """Whatever way getopt_long knows to say it, and in any place."""
    for arguments in ([*output, "--to-latest"], ["--to-latest", *output]):
        told, _ = launcher.restores(*arguments)
        assert told == ["-o", f"{launcher.caller}/r.db", "--to-latest"]
    launcher.compose()
    told, calls = launcher.restores("--to-latest", *output)
    assert told == ["-o", "/host/r.db", "--to-latest"]
    assert f"{launcher.caller}:/host" in next(call for call in calls if "run" in call)


def test_launcher__an_empty_name_is_no_default(launcher):
    """A variable that is not set must not mean the server's own database. Nor is a folder a file."""
    for compose in (False, True):
        if compose:
            launcher.compose()
        for output in (["-o", ""], ["--output="], ["--output", ""], ["--out="], ["--o", ""], ["-o"],
                       ["--out"], ["-o", "", "-o", "r.db"], ["-o", "folder/"], ["--output=/"]):
            said = launcher.refuses(2, "--to-latest", "--replace", *output, words=["name of a file"])
            assert len(said.splitlines()) == 1, said
    assert not list(launcher.caller.iterdir())


def test_launcher__other_options_pass_as_they_are(launcher):
    """Also where what follows one is its value, or no option at all."""
    text = subprocess.run([env.program("restore"), "--help"], capture_output=True, text=True,
                          check=True).stdout
    options = re.findall(r"^ +(?:-o, )?(--[a-z-]+)( [A-Z]+)?  ", text, re.M)
    assert len(options) > 10
    assert sorted(name for name, value in options if value) == \
        ["--generation", "--integrity", "--jobs", "--output", "--to-position", "--to-time"]
    for name, value in options:
        if value and name != "--output":
            for given in (name, name[:-1]):
                assert launcher.restores(given, "-o", "x")[0] == [given, "-o", "x"]
                told, _ = launcher.restores(given, "--out", "-o", "x")
                assert told == ["-o", f"{launcher.caller}/x", given, "--out"]
            told, _ = launcher.restores(f"{name}=1", "-o", "x")
            assert told == ["-o", f"{launcher.caller}/x", f"{name}=1"]
        elif not value and name != "--help":
            told, _ = launcher.restores(name, "-o", "x")
            assert told == ["-o", f"{launcher.caller}/x", name]
    for rest in (["--", "-o", "x"], ["--outputs", "x"], ["--other=x"], ["-x", "a b", ""], []):
        assert launcher.restores("--quiet", *rest)[0] == ["--quiet", *rest]


def test_launcher__statuses_pass_through(launcher):
    for status in range(8):
        launcher.stub(launcher.root / "bin" / "restore", f"*) exit {status} ;;")
        assert launcher.run("--to-latest")[0] == status
    for status in range(8):
        launcher.compose(f"*' restore --to-latest') exit {status} ;;")
        assert launcher.run("--to-latest")[0] == status


def test_launcher__a_stack_without_a_backup(launcher):
    launcher.compose(services="server")
    launcher.refuses(3, "--to-latest", words=["keeps no backup"])


UNREACHABLE = {
    "no engine answers": ("info) exit 1 ;;", ["Docker engine"]),
    "no compose command": ("compose*) echo unknown command >&2; exit 1 ;;", ["unknown command"]),
    "the file cannot be read": ("*config*) echo 'yaml: line 3' >&2; exit 15 ;;", ["yaml: line 3"]),
    "the store does not start": ("*' up '*) echo no such volume >&2; exit 1 ;;",
                                 ["no such volume", "make logs"]),
    "the store is not healthy": ("'ps -a'*) echo 'Up 1 minute (unhealthy)' ;;",
                                 ["60 s", "make logs"]),
}


@pytest.mark.parametrize("docker, words", UNREACHABLE.values(), ids=UNREACHABLE.keys())
def test_launcher__the_way_to_the_store_is_cut(launcher, docker, words):
    """Never "nothing to restore", and not "internal error"."""
    launcher.compose(docker)
    said = launcher.refuses(6, "--to-latest", words=words)
    assert "keeps no backup" not in said


def test_launcher__compose_is_missing(launcher):
    """Recorded by nobody, and what would install it may not."""
    launcher.compose("compose*) exit 1 ;;")
    (launcher.root / ".harvey-stack").write_text("stack=compose\nfile=compose/compose.yaml\n")
    launcher.refuses(6, "--to-latest", words=["sudo apt-get"])


def test_launcher__nothing_is_built(launcher):
    (launcher.root / "bin" / "restore").unlink()
    launcher.refuses(1, "--to-latest", words=["sudo apt-get"])
