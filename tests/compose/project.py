# SPDX-License-Identifier: Apache-2.0
"""The project as a user has it: a copy of this tree in a folder of its own, driven by `make` and
`./restore` alone, in a compose project and on a port that nobody else uses. Whatever is started is
gone afterwards; images stay, they are a cache."""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def docker_answers():
    return shutil.which("docker") and subprocess.run(
        ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def compose_flavours():
    """The ways to call compose that this machine has; an installed one is never left out."""
    found = []
    if docker_answers():
        for command in (["docker", "compose"], ["docker-compose"]):
            try:
                if subprocess.run(command + ["version"], capture_output=True).returncode == 0:
                    found.append(" ".join(command))
            except FileNotFoundError:
                pass
    return found


class Project:
    """A copy of the tree, and the commands that a person types in it."""

    def __init__(self, folder, stack, compose_cmd=None, quiet=False):
        self.dir = folder
        self.quiet = quiet
        self.name = "harvey-test-" + secrets.token_hex(4)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        copy_tree(folder)
        # The caller's own stack and make must not shine through.
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith(("HARVEY_", "AWS_", "COMPOSE", "MAKE", "MFLAGS"))
                    and k not in ("STACK", "PORT", "N")}
        self.env.update(COMPOSE_PROJECT_NAME=self.name, STACK=stack, PORT=str(self.port), HAMMER_S="2")
        self.compose_cmd = compose_cmd
        if compose_cmd:
            self.env["COMPOSE_CMD"] = compose_cmd

    def run(self, *command, ok=True, **env):
        done = subprocess.run(command, cwd=self.dir, env={**self.env, **env}, text=True, timeout=1200,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not self.quiet:
            print(f"$ {' '.join(command)}\n{done.stdout}(exit {done.returncode})", flush=True)
        if ok:
            assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}"
        return done

    def make(self, target, ok=True, **variables):
        return self.run("make", "-s", target, ok=ok, **variables)

    def request(self, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self):
        return json.loads(self.request("/status?format=json")[1])

    def write(self, values):
        for value in values:
            assert self.request("/", value)[0] == 200

    def settle(self, seconds=60):
        """Waits until the archive has everything; the status of that moment."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status()
            if status["lag"]["frames"] == 0 and status["lag"]["ms"] == 0:
                return status
            time.sleep(0.1)
        raise AssertionError(f"lag did not become 0 within {seconds} s: {status}")

    def remove(self):
        self.run("make", "-s", "down", ok=False)
        if self.compose_cmd:
            for kind, remove in (("ps -aq", "rm -f"), ("volume ls -q", "volume rm"),
                                 ("network ls -q", "network rm")):
                label = f"label=com.docker.compose.project={self.name}"
                ids = subprocess.run(["docker", *kind.split(), "--filter", label],
                                     capture_output=True, text=True).stdout.split()
                if ids:
                    subprocess.run(["docker", *remove.split(), *ids], stdout=subprocess.DEVNULL)
            subprocess.run(["docker", "volume", "rm", f"{self.name}-minio"], capture_output=True)


def copy_tree(folder):
    """What git would hand to a user, and what was built of it already, so that nothing is built twice."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for built in ("bin", "build/gcc-release"):
        if (ROOT / built).is_dir():
            shutil.copytree(ROOT / built, folder / built)
