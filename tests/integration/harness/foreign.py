# SPDX-License-Identifier: Apache-2.0
"""The stock `sqlite3` program against a database: a person with a shell, or a cron job."""

import subprocess
import threading
from collections import Counter

from . import env
from .process import clean_environment


def sqlite3(database, *commands, check=True, limit_s=120):
    """Runs the commands in one sqlite3 process; its output."""
    done = subprocess.run([env.tool("sqlite3"), "-batch", str(database)],
                          input="\n".join(commands) + "\n", env=clean_environment(),
                          capture_output=True, text=True, timeout=limit_s, check=False)
    if check:
        assert done.returncode == 0 and not done.stderr, f"{commands}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class ForeignLoop:
    """Runs command lists, one sqlite3 process each, in turn and without a pause, until stop()."""

    def __init__(self, database, scripts, pause_s=0.0, busy_ms=2000):
        self.database = database
        self.scripts = [script if isinstance(script, (list, tuple)) else [script]
                        for script in scripts]
        self.pause_s = pause_s
        self.busy_ms = busy_ms  # a patient RESTART or TRUNCATE holds off every writer meanwhile
        self.outputs = Counter()
        self.rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _run(self):
        while not self._stop.is_set():
            for script in self.scripts:
                if self._stop.is_set():
                    return
                output = sqlite3(self.database, f".timeout {self.busy_ms}", *script, check=False)
                self.outputs[(script[-1], output[-40:])] += 1
                self.rounds += 1
                self._stop.wait(self.pause_s)

    def stop(self):
        self._stop.set()
        self._thread.join()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


CHECKPOINTS = [f"PRAGMA wal_checkpoint({mode});"
               for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE")]
