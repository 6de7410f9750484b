# SPDX-License-Identifier: Apache-2.0
"""The contract of a store (tests/unit/test_store_contract.c) on a real MinIO, plain and with TLS.

HARVEY_UNIT_DIR says where the unit programs are; the default lies beside HARVEY_BIN's folder."""

import os
import subprocess
from pathlib import Path

import pytest

from harness import env
from harness.minio import MinIO
from harness.process import clean_environment
from harness.wait import until


def contract_program():
    folder = os.environ.get("HARVEY_UNIT_DIR")
    build = Path(os.environ.get("HARVEY_BIN") or env.ROOT / "bin").resolve().parent
    places = [Path(folder)] if folder else [build / "tests" / "unit",
                                           env.ROOT / "build" / "gcc-release" / "tests" / "unit"]
    for place in places:
        if (place / "test_store_contract").is_file():
            return str((place / "test_store_contract").resolve())
    env.cannot_run("test_store_contract is not built: `make unit-build`, or HARVEY_UNIT_DIR")


def run_contract(minio, tmp_path, scheme="http", **extra):
    child = subprocess.run(
        [contract_program()], capture_output=True, text=True, errors="replace", timeout=600,
        env=clean_environment(HARVEY_TEST_S3_ENDPOINT=f"{scheme}://127.0.0.1:{minio.port.number}",
                              HARVEY_TEST_S3_BUCKET="contract", TMPDIR=str(tmp_path),
                              HARVEY_TEST_S3_KEY_ID=minio.access_key,
                              HARVEY_TEST_S3_SECRET=minio.secret_key, **extra))
    output = child.stdout + child.stderr
    assert child.returncode == 0, output
    # once on a directory, once on the bucket: a group that did not run has passed nothing
    assert output.count("[  PASSED  ]") == 2 and "SKIPPED" not in output, output


def test_store_contract_on_minio(shared_minio, tmp_path):
    run_contract(shared_minio(), tmp_path)


class TLSMinIO(MinIO):
    """MinIO with a certificate of its own making in --certs-dir."""

    def __init__(self, folder, name="tls-minio"):
        super().__init__(folder, name)
        self.certs = folder / "certs"
        self.certs.mkdir()
        self.certificate = self.certs / "public.crt"
        subprocess.run([env.tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes",
                        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", self.certs / "private.key",
                        "-out", self.certificate], check=True, capture_output=True, timeout=60)
        self.argv = self.argv[:2] + ["--certs-dir", str(self.certs)] + self.argv[2:]


@pytest.fixture
def tls_minio(tmp_path):
    minio = TLSMinIO(tmp_path / "minio")
    minio.start()

    def healthy():
        minio.check_alive()
        return subprocess.run([env.tool("curl"), "-sf", "--cacert", minio.certificate,
                               f"https://127.0.0.1:{minio.port.number}/minio/health/live"],
                              timeout=20).returncode == 0
    until(healthy, "MinIO to be healthy")
    yield minio
    minio.stop()


def test_store_contract_on_minio_with_tls(tls_minio, tmp_path):
    run_contract(tls_minio, tmp_path, "https", HARVEY_TEST_S3_CA_FILE=str(tls_minio.certificate))
