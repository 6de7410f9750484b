# SPDX-License-Identifier: Apache-2.0
"""bin/door as a process, on a socket and a port of its own, and servers behind it."""

import re
import shutil
import subprocess
import tempfile

from . import env
from .process import Process, clean_environment
from .wait import until


class DoorPort:
    """What a server behind the door has for a port: the door's."""

    def __init__(self, door):
        self._door = door

    @property
    def number(self):
        return self._door.port or 0


class Door(Process):
    def __init__(self, folder):
        self.folder = tempfile.mkdtemp(prefix="harvey-door-")  # a socket's path is short
        self.path = f"{self.folder}/door.sock"
        self.port = None
        super().__init__("door", [env.program("door")], None, folder, folder / "door.log")

    def start(self):
        listen = f"127.0.0.1:{self.port or 0}"
        self.env = clean_environment(HARVEY_DOOR_SOCKET=self.path, HARVEY_DOOR_LISTEN=listen)
        self.spawn()
        until(self.counts, "a healthy door")
        if self.port is None:
            self.port = int(re.findall(r"listening address=127\.0\.0\.1:(\d+)", self.log())[-1])
        return self

    def counts(self):
        """(apps, parked); None: no answer."""
        done = subprocess.run([env.program("door"), "--health"], capture_output=True, text=True,
                              env=clean_environment(HARVEY_DOOR_SOCKET=self.path))
        found = re.search(r"apps=(\d+) parked=(\d+)", done.stdout)
        return (int(found[1]), int(found[2])) if found else None

    def wait_counts(self, apps, parked=None):
        until(lambda: (now := self.counts()) and now[0] == apps and parked in (None, now[1]),
              f"{apps} apps, {parked} parked")

    def kill(self):
        super().kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def behind(door, server):
    """Puts a server, not started yet, behind the door."""
    server.settings["DOOR_SOCKET"] = door.path
    server.port.close()
    server.port = DoorPort(door)
    return server


def wait_joined(server):
    """Until this very server accepts: /readyz through the door may be answered by a sibling."""
    def look():
        server.check_alive()
        return re.search(r"door +listening  address=", server.log())
    until(look, f"{server.name} to join")
    return server
