# SPDX-License-Identifier: Apache-2.0
"""The `restore` program, run to its end."""

import json
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from . import env
from .process import Process, clean_environment
from .wait import LIMIT_S

POSITION = re.compile(r"\b(\d{8}-[0-9a-f]{16})/0*(\d+)/0*(\d+)\b")


def rfc3339(unix_ms):
    moment = datetime.fromtimestamp(unix_ms // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


class Restored:
    """What a run of restore said and left."""

    def __init__(self, argv, code, stdout, stderr, target):
        self.argv, self.code, self.stdout, self.stderr = argv, code, stdout, stderr
        self.target = Path(target)

    @property
    def text(self):
        return self.stdout + self.stderr

    def positions(self):
        """All positions named in the output: (generation, wal_no, frame_no)."""
        return [(m[1], int(m[2]), int(m[3])) for m in POSITION.finditer(self.text)]

    def json(self):
        return json.loads(self.stdout)

    def expect(self, *codes):
        assert self.code in codes, f"exit {self.code}, expected {codes}: {self.describe()}"
        return self

    def describe(self):
        return f"{' '.join(self.argv)}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def left_behind(self):
        """What lies at and beside the target, but for the -harvey folder's lock."""
        found = []
        for path in sorted(self.target.parent.glob(self.target.name + "*")):
            if path.is_dir() and path.name.endswith("-harvey"):
                found += [f"{path.name}/{inner.name}" for inner in sorted(path.iterdir())
                          if inner.name != "leader.lock"]
            else:
                found.append(path.name)
        found += [path.name for path in sorted(self.target.parent.glob(f".{self.target.name}*"))]
        return found


def restore_argv(target, *options, binary=None):
    return [binary or env.program("restore"), *[str(option) for option in options], "-o", str(target)]


def run_restore(archive, target, *options, limit_s=None, binary=None, **settings):
    """Runs restore; never raises for its exit status."""
    argv = restore_argv(target, *(options or ("--to-latest",)), binary=binary)
    variables = archive.environment()
    variables.update({f"HARVEY_{key}": value for key, value in settings.items()})
    done = subprocess.run(argv, env=clean_environment(**variables), stdin=subprocess.DEVNULL,
                          cwd=Path(target).parent, capture_output=True, text=True,
                          timeout=limit_s or 2 * LIMIT_S, check=False)
    return Restored(argv, done.returncode, done.stdout, done.stderr, target)


def start_restore(scene, archive, target, *options):
    """Starts restore as a process to be killed."""
    return Process("restore", restore_argv(target, *(options or ("--to-latest",))),
                   clean_environment(**archive.environment()), scene.dir,
                   scene.dir / "restore.log").spawn()
