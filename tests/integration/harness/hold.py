# SPDX-License-Identifier: Apache-2.0
"""A server that stands at one of its named steps for as long as a test wants."""

from .wait import until


class Hold:
    """A server with test hooks that stops at a step while this stands: from the start, or from begin() on."""

    def __init__(self, scene, step, begun=True):
        self.file = scene.dir / f"hold-{step}"
        self.held = scene.dir / f"hold-{step}.held"
        self.setting = f"{step}:{self.file}"
        if begun:
            self.begin()

    def begin(self):
        self.file.touch()

    def wait(self):
        until(self.held.exists, f"somebody at {self.setting}")

    def end(self):
        self.file.unlink()
