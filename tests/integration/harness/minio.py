# SPDX-License-Identifier: Apache-2.0
"""A MinIO process on loopback, with credentials made at random, on a directory of its own."""

import http.client
import secrets

from . import env
from .process import Port, Process, clean_environment
from .s3 import S3, S3Error
from .wait import Waited, until


class MinIO(Process):
    def __init__(self, folder, name="minio"):
        binary = env.minio_binary()
        if binary is None:
            env.cannot_run("no MinIO binary: `minio/build.sh` makes bin/minio, or set MINIO_BIN")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = Port()
        self.access_key = "user" + secrets.token_hex(6)
        self.secret_key = secrets.token_hex(16)
        self.s3 = S3(self.port.number, self.access_key, self.secret_key)
        super().__init__(name, [binary, "server", "--quiet", "--address",
                                f"127.0.0.1:{self.port.number}", folder / "data"], None, folder,
                         folder / "minio.log")

    def start(self):
        self.env = clean_environment(HOME=self.folder, MINIO_BROWSER="off", MINIO_UPDATE="off",
                                     MINIO_ROOT_USER=self.access_key,
                                     MINIO_ROOT_PASSWORD=self.secret_key, GOMAXPROCS="2")
        self.spawn()
        return self

    def start_ready(self):
        self.start()

        def healthy():
            self.check_alive()
            connection = http.client.HTTPConnection("127.0.0.1", self.port.number, timeout=5)
            try:
                connection.request("GET", "/minio/health/live")
                if connection.getresponse().status != 200:
                    return False
                self.s3.call("GET", "/")  # healthy comes before it knows its own user
                return True
            except (OSError, http.client.HTTPException, S3Error):
                return False
            finally:
                connection.close()
        until(healthy, "MinIO to be healthy")
        return self

    def stop(self):
        if self.is_alive():
            self.thaw()
            self.child.terminate()
            try:
                self.wait(10)
            except Waited:
                self.kill()
