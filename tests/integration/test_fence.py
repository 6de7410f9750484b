# SPDX-License-Identifier: Apache-2.0
"""Two servers that claim the same lead at the same moment, on a store that takes If-None-Match and
ignores it: both puts are answered with success, and only reading back tells who was first. The other
server is a scripted store that stores somebody else's claim over ours right after it has taken it."""

import json
import sys
from pathlib import Path

from harness.forge import sealed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fault"))

from s3_script import Fault, ScriptedS3  # noqa: E402


class ScriptedArchive:
    kind = "scripted"
    url = "s3://bucket/p"

    def __init__(self, s3):
        self.s3 = s3

    def environment(self):
        return {"HARVEY_ARCHIVE": self.url, "HARVEY_S3_ENDPOINT": self.s3.endpoint,
                "HARVEY_S3_ACCESS_KEY_ID": "key", "HARVEY_S3_SECRET_ACCESS_KEY": "secret"}

    def segments(self):
        return [key for key in self.s3.objects["bucket"] if key.endswith(".wal.zst")]


def overwritten(change):
    """Carried out and answered as it should be; then somebody else's bytes lie there."""
    def play(wire, request, server):
        answer = server.carry_out(request)
        server.objects["bucket"][request.key] = change(request.body)
        wire.answer(answer, request)
        return True
    return Fault(play)


def other_tag(claim):
    return sealed({**json.loads(claim), "tag": "0badcafe"})


def test_fence__a_store_that_ignores_the_condition(scene):
    with ScriptedS3() as s3:
        s3.honours_if_none_match = False
        s3.on("PUT", overwritten(other_tag), key=r"leads/")
        archive = ScriptedArchive(s3)
        server = scene.server(archive).start()
        server.wait_not_ready("claimed the lead")
        assert archive.segments() == []  # nothing of ours went into a history that may be another's
        assert len([key for key in s3.objects["bucket"] if "/leads/" in key]) == 1
        server.kill()
