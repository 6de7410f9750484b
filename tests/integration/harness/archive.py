# SPDX-License-Identifier: Apache-2.0
"""The archive under test, seen from outside: a directory, or a prefix of a bucket."""

import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path

SEGMENT = re.compile(r"^(?P<generation>\d{8}-[0-9a-f]{16})/wal/(?P<wal>\d{10})/"
                     r"(?P<first>\d{10})-(?P<last>\d{10})-(?P<unix_ms>\d{13})-"
                     r"(?P<term>\d{10})-[0-9a-f]{8}\.wal\.zst$")
COMPLETE = re.compile(r"^(?P<generation>\d{8}-[0-9a-f]{16})/snapshots/(?P<wal>\d{10})-"
                      r"(?P<frame>\d{10})-[0-9a-f]{8}/complete\.json$")
BIRTH = re.compile(r"^generations/\d{8}\.json$")
CLAIM = re.compile(r"^(?P<generation>\d{8}-[0-9a-f]{16})/leads/\d{10}\.json$")


class Archive:
    kind = None
    minio = None

    # ---- what tests ask about the names ----
    def keys(self):
        return sorted(self.list())

    def segments(self):
        """Matches of SEGMENT, in name order."""
        return [match for match in map(SEGMENT.match, self.keys()) if match]

    def generations(self):
        return [key for key in self.keys() if BIRTH.match(key)]

    def generation_ids(self):
        """Of all that left any object, oldest first."""
        return sorted({match["generation"] for key in self.keys()
                       for match in (SEGMENT.match(key), COMPLETE.match(key), CLAIM.match(key))
                       if match})

    def complete_snapshots(self):
        return [match for match in map(COMPLETE.match, self.keys()) if match]

    def copy_to(self, folder):
        """All objects as files below `folder`; gives a DirectoryArchive there."""
        folder = Path(folder)
        for key in self.keys():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))
        folder.mkdir(parents=True, exist_ok=True)
        return DirectoryArchive(folder)


class DirectoryArchive(Archive):
    kind = "dir"

    def __init__(self, path):
        self.path = Path(path)

    @property
    def url(self):
        return f"dir:{self.path}"

    def environment(self):
        return {"HARVEY_ARCHIVE": self.url}

    def list(self):
        """{key: (size, hash of the content)}; dot names at the top are the store's own business."""
        found = {}
        for folder, names, files in os.walk(self.path):
            if Path(folder) == self.path:
                names[:] = [name for name in names if not name.startswith(".")]
                files = [name for name in files if not name.startswith(".")]
            for name in files:
                path = Path(folder) / name
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                found[str(path.relative_to(self.path))] = (len(data),
                                                           hashlib.sha256(data).hexdigest())
        return found

    def keys(self):
        found = []
        for folder, names, files in os.walk(self.path):
            if Path(folder) == self.path:
                names[:] = [name for name in names if not name.startswith(".")]
                files = [name for name in files if not name.startswith(".")]
            found += [str((Path(folder) / name).relative_to(self.path)) for name in files]
        return sorted(found)

    def get(self, key):
        return (self.path / key).read_bytes()

    def put(self, key, data):
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, key):
        (self.path / key).unlink()

    def empty(self):
        shutil.rmtree(self.path)
        self.path.mkdir()

    # ---- an outage: a plain file stands where the directory was, so every access fails ----
    def break_off(self):
        self.path.rename(self.path.with_name(self.path.name + ".away"))
        self.path.write_text("no directory\n")

    def mend(self):
        self.path.unlink()
        self.path.with_name(self.path.name + ".away").rename(self.path)


class BucketArchive(Archive):
    kind = "minio"

    def __init__(self, minio, bucket=None, prefix="demo"):
        self.minio = minio
        self.bucket = bucket or "test-" + secrets.token_hex(5)
        self.prefix = prefix
        self.endpoint_port = minio.port.number  # a proxy's, where one stands between

    @property
    def url(self):
        return f"s3://{self.bucket}/{self.prefix}"

    def environment(self):
        return {"HARVEY_ARCHIVE": self.url,
                "HARVEY_S3_ENDPOINT": f"http://127.0.0.1:{self.endpoint_port}",
                "HARVEY_S3_ACCESS_KEY_ID": self.minio.access_key,
                "HARVEY_S3_SECRET_ACCESS_KEY": self.minio.secret_key}

    def _key(self, key):
        return f"{self.prefix}/{key}"

    def list(self):
        skip = len(self.prefix) + 1
        return {key[skip:]: value
                for key, value in self.minio.s3.list(self.bucket, self.prefix + "/").items()}

    def get(self, key):
        return self.minio.s3.get(self.bucket, self._key(key))

    def put(self, key, data):
        self.minio.s3.put(self.bucket, self._key(key), data)

    def delete(self, key):
        self.minio.s3.delete(self.bucket, self._key(key))

    def empty(self):
        for key in self.keys():
            self.delete(key)

    def break_off(self):
        self.minio.kill()

    def mend(self):
        self.minio.start_ready()
