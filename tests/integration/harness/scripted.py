# SPDX-License-Identifier: Apache-2.0
"""The scripted S3 server (tests/fault/s3_script.py) as an archive of the harness."""

import hashlib
import sys

from . import env
from .archive import Archive

sys.path.insert(0, str(env.ROOT / "tests" / "fault"))

from s3_script import ScriptedS3, faults  # noqa: E402,F401


class ScriptedArchive(Archive):
    """A bucket in this process's memory; `s3` is told which faults to play."""

    kind = "script"

    def __init__(self, prefix="demo"):
        self.s3 = ScriptedS3()
        self.prefix = prefix

    def stop(self):
        self.s3.stop()

    @property
    def objects(self):
        return self.s3.objects["bucket"]

    @property
    def url(self):
        return f"s3://bucket/{self.prefix}"

    def environment(self):
        return {"HARVEY_ARCHIVE": self.url, "HARVEY_S3_ENDPOINT": self.s3.endpoint,
                "HARVEY_S3_ACCESS_KEY_ID": "key", "HARVEY_S3_SECRET_ACCESS_KEY": "secret"}

    def list(self):
        skip = len(self.prefix) + 1
        return {key[skip:]: (len(data), hashlib.sha256(data).hexdigest())
                for key, data in list(self.objects.items()) if key.startswith(self.prefix + "/")}

    def get(self, key):
        return self.objects[f"{self.prefix}/{key}"]

    def put(self, key, data):
        self.objects[f"{self.prefix}/{key}"] = data

    def delete(self, key):
        del self.objects[f"{self.prefix}/{key}"]

    def empty(self):
        self.objects.clear()

    def break_off(self):
        self.s3.refuse()

    def mend(self):
        self.s3.answer()
