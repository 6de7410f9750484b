# SPDX-License-Identifier: Apache-2.0
"""Every fault of a store, met with a scripted S3 server: what the guard makes of it, and, for
libs3's own defects (D1-D13), what libs3 alone would have said. The probe is built here with test
hooks and run with and without HARVEY_TEST_S3_GUARD_OFF, so that each row is seen to fail without its
guard. What that costs a server and a restore: test_store_guard.py."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import env

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fault"))

from s3_script import ScriptedS3, error, faults  # noqa: E402

SOURCES = ["tests/integration/store_probe.c", "base/err.c", "base/buf.c", "base/bytes.c",
           "base/clk.c", "base/failpoint.c", "base/fsio.c", "base/fsio_dir.c", "base/hash.c",
           "base/stop.c",
           "archive/store.c", "archive/store_config.c", "archive/store_dir.c",
           "archive/store_dir_list.c", "archive/store_s3.c", "archive/store_s3_list.c",
           "archive/store_s3_object.c", "archive/s3_answer.c", "archive/s3_guard.c"]
WRAP = ["-Wl,--wrap=curl_easy_setopt", "-Wl,--wrap=curl_easy_perform"]
MANY_ELEMENTS = "".join(f"<E{i}>v</E{i}>" for i in range(400))
SECRET = "s3cr3t-never-shown"


def libs3_archive():
    for pattern in ("usr/lib/libs3.a", "usr/lib/*/libs3.a"):
        for path in Path("/").glob(pattern):
            return str(path)
    env.cannot_run("libs3.a is not installed (libs3-dev)")


def compiler():
    """The compiler and sanitizer of the build under test, or plain gcc."""
    build = os.environ.get("HARVEY_BIN", "")
    if "asan" in build:
        return ["clang", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if "tsan" in build:
        return ["clang", "-fsanitize=thread"]
    return shlex.split(os.environ.get("CC", "gcc"))


def build_probe(path, *extra, libs3=None):
    sources, level = SOURCES, "-O1"
    if os.environ.get("HARVEY_OBJ"):  # tests/mutations: what -D does not touch is compiled already
        sources, level = [name if name == SOURCES[0] or (extra and "s3" in name) else
                          f"{os.environ['HARVEY_OBJ']}/{name[:-2]}.o" for name in SOURCES], "-O0"
    subprocess.run([*compiler(), "-std=gnu17", "-g", level, "-I.", "-D_GNU_SOURCE", "-pthread",
                    *extra, "-o", path, *sources, *WRAP, libs3 or libs3_archive(), "-lcurl",
                    "-lxml2", "-lcrypto"], cwd=env.ROOT, check=True, timeout=300)
    return path


@pytest.fixture(scope="session")
def probes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store-probe")
    hooked = build_probe(folder / "probe", "-DHARVEY_TEST_HOOKS")
    return {"guarded": hooked, "bare": hooked, "folder": folder}


class Result(list):
    """A line for each command: (code, text). `died` = the signal that ended the probe."""

    def __init__(self, child):
        super().__init__(tuple(line.split(" ", 1)) for line in child.stdout.splitlines() if line)
        self.died = -child.returncode if child.returncode < 0 else 0
        self.output = child.stdout + child.stderr

    @property
    def codes(self):
        return [line[0] for line in self]


@pytest.fixture
def run(probes):
    def run(s3, *words, probe="guarded", request_ms=4000, connect_ms=2000, prefix="p", stop_ms=0,
            endpoint=None, **extra):
        environment = {"PATH": os.environ["PATH"],
                       "HARVEY_ARCHIVE": f"s3://bucket/{prefix}",
                       "HARVEY_S3_ENDPOINT": endpoint or s3.endpoint,
                       "HARVEY_S3_ACCESS_KEY_ID": "key",
                       "HARVEY_S3_SECRET_ACCESS_KEY": SECRET,
                       "ASAN_OPTIONS": "detect_leaks=0" if probe == "bare" else "",
                       **extra}
        if probe == "bare":
            environment["HARVEY_TEST_S3_GUARD_OFF"] = "1"
        if probe == "guarded":
            environment["http_proxy"] = "http://127.0.0.1:9"  # must not be asked
        child = subprocess.run([probes[probe], "-t", str(request_ms), "-c", str(connect_ms), "-s",
                                str(stop_ms), *(str(word) for word in words)], env=environment,
                               capture_output=True, text=True, errors="replace", timeout=90)
        result = Result(child)
        assert SECRET not in result.output
        if probe == "guarded":
            assert child.returncode == 0 and not child.stderr, result.output
        return result
    return run


@pytest.fixture
def s3():
    with ScriptedS3() as server:
        yield server


def only(result):
    assert len(result) == 1, result
    return result[0]


# ---- D1-D13: what libs3 gets wrong, guarded and bare ----

@pytest.mark.parametrize("status,code", [(403, "denied"), (500, "unavailable"),
                                         (503, "unavailable")])
def test_d1_empty_error_answer_to_a_put(s3, run, status, code):
    s3.on("PUT", faults.status(status))
    assert only(run(s3, "put", "k", "text"))[0] == code
    assert s3.objects["bucket"] == {}
    s3.on("PUT", faults.status(status))
    assert only(run(s3, "put", "k", "text", probe="bare"))[0] == "ok"  # the loss


def test_d1_html_error_answer_to_a_put(s3, run):
    page = b"<html><body>Bad gateway</body></html>"
    s3.on("PUT", faults.status(502, body=page))
    assert only(run(s3, "put", "k", "text"))[0] == "unavailable"
    s3.on("PUT", faults.status(502, body=page))
    assert only(run(s3, "put", "k", "text", probe="bare"))[0] == "ok"


def test_d2_no_100_continue(s3, run):
    size = 2 << 20  # large enough to ask for it
    s3.on("PUT", faults.late(0.2, says_continue=False))
    assert only(run(s3, "big", "k", size))[0] == "ok"
    assert len(s3.objects["bucket"]["p/k"]) == size
    s3.on("PUT", faults.late(0.2, says_continue=False))
    code, text = only(run(s3, "big", "k2", size, probe="bare"))
    assert code != "ok" and "ConnectionFailed" in text


@pytest.mark.parametrize("fault", [faults.cut(40), faults.cut(40, chunked=True),
                                   faults.cut(40, length=False)])
def test_d3_cut_download(s3, run, fault):
    s3.objects["bucket"]["p/k"] = b"x" * 100
    s3.on("GET", fault)
    assert only(run(s3, "get", "k"))[0] == "unavailable"
    s3.on("GET", fault)
    code, text = only(run(s3, "get", "k", probe="bare"))
    assert code == "ok" and len(text) == 40


@pytest.mark.parametrize("cut", ["length", "own", "chunked"])
def test_d4_cut_listing(s3, run, cut):
    s3.objects["bucket"].update({f"p/{i:03}": b"" for i in range(100)})
    fault = {"length": faults.cut(9000), "own": faults.cut(9000, length="own"),
             "chunked": faults.cut(9000, chunked=True)}[cut]
    s3.on("LIST", fault)
    assert only(run(s3, "list", ""))[0] == "unavailable"
    s3.on("LIST", fault)
    code, text = only(run(s3, "list", "", probe="bare"))
    assert code == "ok" and 0 < len(text.split()) < 100


def test_d5_reset_after_the_body(s3, run):
    s3.on("PUT", faults.reset())
    code, text = only(run(s3, "put", "k", "text"))
    assert code == "unavailable" and s3.count("HEAD") == 1  # the outcome was looked up
    s3.on("PUT", faults.reset())
    assert "InternalError" in only(run(s3, "put", "k", "text", probe="bare"))[1]


@pytest.mark.parametrize("code", ["SlowDownRead", "SlowDownWrite", "SlowDown",
                                  "XMinioSomethingNew"])
def test_d6_d7_codes_that_libs3_does_not_know(s3, run, code):
    s3.on("PUT", faults.status(503, code, "Please reduce your request rate"))
    rc, text = only(run(s3, "put", "k", "text"))
    assert rc == "unavailable" and code in text and "reduce your request rate" in text
    s3.on("PUT", faults.status(503, code, "Please reduce your request rate"))
    assert "reduce your" not in only(run(s3, "put", "k", "text", probe="bare"))[1]


def test_d8_the_etag_of_a_put_is_checked(s3, run):
    s3.on("PUT", faults.stored_otherwise(b"tixt"))
    assert only(run(s3, "put", "k", "text"))[0] == "ok"  # put over it, once
    assert s3.objects["bucket"]["p/k"] == b"text"
    s3.on("PUT", faults.stored_otherwise(b"tixt"), times=2)
    assert only(run(s3, "put", "k1", "text"))[0] == "corrupt"
    s3.on("PUT", faults.stored_otherwise(b"tixt"))
    assert only(run(s3, "absent", "k3", "text"))[0] == "corrupt"  # it may be somebody else's
    s3.on("PUT", faults.stored_otherwise(b"tixt"))
    assert only(run(s3, "put", "k2", "text", probe="bare"))[0] == "ok"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run([env.tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
                    "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return str(cert), str(key)


def test_d9_untrusted_certificate(certificate, run):
    with ScriptedS3(certificate=certificate) as s3:
        code, text = only(run(s3, "put", "k", "text"))
        assert code == "denied" and "certificate" in text
        assert s3.requests == []
        assert only(run(s3, "put", "k", "text", HARVEY_S3_CA_FILE=certificate[0]))[0] == "ok"
        assert only(run(s3, "put", "k2", "text", probe="bare"))[0] == "ok"  # told to anybody


def test_d9_certificate_of_another_host(certificate, run):
    with ScriptedS3(certificate=certificate) as s3:
        other = f"https://localhost:{s3.port}"
        code, _ = only(run(s3, "put", "k", "text", HARVEY_S3_CA_FILE=certificate[0],
                           endpoint=other))
        assert code == "denied" and s3.requests == []


def test_d2_http_1_1_where_the_store_offers_2(certificate, run):
    with ScriptedS3(certificate=certificate) as s3:
        s3.offer(["h2", "http/1.1"])
        assert only(run(s3, "put", "k", "text", HARVEY_S3_CA_FILE=certificate[0]))[0] == "ok"
        assert "h2" not in s3.agreed, s3.agreed


def test_d10_header_names_in_lower_case(s3, run):
    s3.objects["bucket"]["p/k"] = b"12345"
    s3.on("HEAD", faults.lower_case())
    assert only(run(s3, "head", "k")) == ("ok", "5")
    s3.on("PUT", faults.lower_case())
    assert only(run(s3, "put", "k2", "text"))[0] == "ok"
    assert s3.count("GET") == 0  # its ETag was understood
    s3.on("HEAD", faults.lower_case())
    assert only(run(s3, "head", "k", probe="bare")) == ("ok", "0")


def many_metadata(answer):
    answer.headers.update({f"x-amz-meta-e{i}": "v" for i in range(400)})


@pytest.mark.parametrize("fault", [
    faults.status(500, "InternalError", "x", extra=MANY_ELEMENTS),
    faults.status(500, "InternalError", "x" * 100000),
    faults.endless(),
])
def test_d11_error_answers_that_overrun_libs3(s3, run, fault):
    """Bare, the first overruns an array inside libs3's own struct: no crash to see here."""
    s3.on("GET", fault)
    assert only(run(s3, "get", "k"))[0] == "unavailable"


def test_d11_headers_that_kill_libs3(s3, run):
    s3.objects["bucket"]["p/k"] = b"text"
    s3.on("GET", faults.changed(many_metadata))
    assert only(run(s3, "get", "k")) == ("ok", "text")
    s3.on("GET", faults.changed(many_metadata))
    result = run(s3, "get", "k", probe="bare")
    assert result.died or "Sanitizer" in result.output


def test_d12_a_miss_is_a_miss(s3, run):
    result = run(s3, "get", "k", ",", "head", "k", ",", "remove", "k")
    assert result.codes == ["not_found", "not_found", "ok"]
    assert "bucket" not in result[0][1] and "bucket" not in result[1][1].replace("bucket/", "")
    bare = run(s3, "get", "k", ",", "head", "k", probe="bare")
    assert "NoSuchKey" in bare[0][1] and "HttpErrorNotFound" in bare[1][1]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_d13_redirects_are_not_followed(s3, run, status):
    with ScriptedS3() as elsewhere:
        elsewhere.objects["bucket"]["p/k"] = b"from elsewhere"
        headers = {"Location": f"{elsewhere.endpoint}/bucket/p/k"}
        for kind, command in (("GET", ("get", "k")), ("PUT", ("put", "k", "text"))):
            s3.on(kind, faults.status(status, "TemporaryRedirect", "go there", headers=headers))
            code, text = only(run(s3, *command))
            assert code == "invalid" and elsewhere.endpoint in text
        assert elsewhere.requests == []
        s3.on("GET", faults.status(status, headers=headers))
        run(s3, "get", "k", probe="bare")
        assert elsewhere.count("GET") == 1


def test_the_guard_notices_when_it_is_not_there(probes, s3, run):
    """With the shared libs3, --wrap reaches nothing: the self-test refuses to work."""
    probes["unwrapped"] = build_probe(probes["folder"] / "unwrapped", libs3="-ls3")
    result = run(s3, "put", "k", "text", probe="unwrapped")
    assert only(result)[0] == "internal" and "--wrap" in result[0][1]
    assert s3.requests == []


# ---- outcomes that are not known ----

@pytest.mark.parametrize("command", ["put", "absent"])
def test_lost_reply_of_a_stored_put(s3, run, command):
    s3.on("PUT", faults.lost_reply())
    assert only(run(s3, command, "k", "text"))[0] == "ok"
    assert s3.objects["bucket"]["p/k"] == b"text"


def test_lost_reply_on_a_kept_connection(s3, run):
    """libcurl sends again by itself there; the second try meets the first one's object."""
    s3.on("PUT", faults.lost_reply(), key="k2")
    result = run(s3, "create", ",", "put", "k1", "a", ",", "absent", "k2", "b")
    assert result.codes == ["ok", "ok", "ok"]
    assert s3.objects["bucket"]["p/k2"] == b"b"


def test_a_kept_connection_that_dies(s3, run):
    """Nothing was stored: libcurl sends the whole body again on a new connection."""
    s3.on("PUT", faults.reset(), key="k2")
    result = run(s3, "create", ",", "put", "k1", "a", ",", "put", "k2", "body")
    assert result.codes == ["ok", "ok", "ok"], result
    assert s3.objects["bucket"]["p/k2"] == b"body"


def test_lost_reply_and_a_store_that_stays_away(s3, run):
    s3.on("PUT", faults.lost_reply())
    s3.on("HEAD", faults.status(503, "SlowDown", "later"))
    assert only(run(s3, "put", "k", "text"))[0] == "unavailable"
    result = run(s3, "create", ",", "put", "k", "text")  # the retry finds its own first try
    assert result.codes == ["ok", "ok"]


def test_lost_reply_of_somebody_elses_object(s3, run):
    s3.objects["bucket"]["p/k"] = b"else"
    s3.on("PUT", faults.reset())
    assert only(run(s3, "put", "k", "text"))[0] == "unavailable"


@pytest.mark.parametrize("fault,code", [(faults.silence(), "timeout"),
                                        (faults.close(), "unavailable"),
                                        (faults.reset(), "unavailable"),
                                        (faults.reset(after_body=False), "unavailable")])
def test_put_without_an_answer(s3, run, fault, code):
    s3.on("PUT", fault)
    s3.on("HEAD", faults.status(404))
    assert only(run(s3, "put", "k", "text", request_ms=1500))[0] == code


@pytest.mark.parametrize("fault,code", [(faults.silence(), "timeout"),
                                        (faults.stall(10), "timeout"),
                                        (faults.close(), "unavailable"),
                                        (faults.reset(), "unavailable")])
def test_get_without_a_whole_answer(s3, run, fault, code):
    s3.objects["bucket"]["p/k"] = b"x" * 100
    s3.on("GET", fault)
    result = run(s3, "get", "k", ",", "get", "k", request_ms=1500)
    if result.codes[0] == "ok":  # libcurl asked again on a new connection
        assert code == "unavailable"
    else:
        assert result.codes == [code, "ok"]


def test_refused_connection(s3, run):
    code, text = only(run(s3, "put", "k", "text", endpoint="http://127.0.0.1:9"))
    assert code == "unavailable" and s3.requests == []


def test_unknown_host(s3, run):
    code, _ = only(run(s3, "put", "k", "text", endpoint="http://no-such-host.invalid"))
    assert code in ("unavailable", "timeout")


def test_slow_store_is_waited_for(s3, run):
    s3.on("PUT", faults.late(2))
    assert only(run(s3, "put", "k", "text"))[0] == "ok"


# ---- lines that are slow, and stores that never end ----

KIB = 1024  # the limit is 16 of them a second once the time-out has passed


def test_slow_line_down(s3, run):
    """What moves, steadily, may take several times the time-out."""
    s3.objects["bucket"]["p/k"] = b"x" * 128 * KIB
    s3.on("GET", faults.slow(32 * KIB))
    code, text = only(run(s3, "get", "k", request_ms=1000))
    assert code == "ok" and len(text) == 128 * KIB, text[:300]


def test_slow_line_up(s3, run):
    s3.narrow()
    s3.on("PUT", faults.slow_to_read(256 * KIB))
    code, text = only(run(s3, "big", "k", 1 << 20, request_ms=2000))
    assert code == "ok", text
    assert len(s3.objects["bucket"]["p/k"]) == 1 << 20


def test_slow_line_listing(s3, run):
    s3.objects["bucket"].update({f"p/{i:04}": b"" for i in range(500)})
    s3.on("LIST", faults.slow(32 * KIB))
    code, text = only(run(s3, "list", "", request_ms=1000))
    assert code == "ok" and len(text.split()) == 500


def test_trickle_down_ends(s3, run):
    """A byte now and then is no reason to wait on."""
    s3.objects["bucket"]["p/k"] = b"x" * (1 << 20)
    s3.on("GET", faults.slow(2 * KIB))
    began = time.monotonic()
    code, text = only(run(s3, "get", "k", request_ms=1000))
    assert code == "timeout" and time.monotonic() - began < 10
    assert "slower than 16 KiB/s" in text, text


def test_trickle_up_ends(s3, run):
    s3.narrow()
    s3.on("PUT", faults.slow_to_read(2 * KIB))
    s3.on("HEAD", faults.status(404))
    began = time.monotonic()
    assert only(run(s3, "big", "k", 1 << 20, request_ms=1000))[0] == "timeout"
    assert time.monotonic() - began < 20


def test_large_put_without_an_answer(s3, run):
    """All was taken at once, and then nothing: its size is no reason to wait on."""
    s3.on("PUT", faults.silence())
    s3.on("HEAD", faults.status(404))
    began = time.monotonic()
    code, text = only(run(s3, "big", "k", 4 << 20, request_ms=1000))
    assert code == "timeout" and time.monotonic() - began < 10
    assert "slower" not in text, text


@pytest.mark.parametrize("status,command", [(500, ("get", "k")), (500, ("list", "")),
                                            (200, ("list", ""))])
def test_bodies_without_end_end(s3, run, status, command):
    """However fast an error's words come, or a listing's spaces: they buy no time."""
    s3.on("GET", faults.pouring(status, b"<Error>"))
    s3.on("LIST", faults.pouring(status, b"<ListBucketResult>"))
    began = time.monotonic()
    assert only(run(s3, *command, request_ms=1000))[0] in ("timeout", "unavailable")
    assert time.monotonic() - began < 10


def test_stop_ends_a_call(s3, run):
    s3.on("PUT", faults.silence())
    code, _ = only(run(s3, "put", "k", "text", request_ms=30000, stop_ms=300))
    assert code == "stopped"


def test_chunked_answers(s3, run):
    s3.objects["bucket"]["p/k"] = b"x" * 100
    s3.on("GET", faults.chunked())
    s3.on("LIST", faults.chunked())
    assert run(s3, "get", "k", ",", "list", "") == [("ok", "x" * 100), ("ok", "k=100 ")]


# ---- answers that cannot be right ----

def test_success_that_was_none(s3, run):
    s3.on("PUT", faults.etag(None))  # stored, and only the ETag is missing
    assert only(run(s3, "put", "k", "text"))[0] == "ok"
    s3.on("PUT", faults.status(200, body=b"<html>Welcome to our network</html>"))
    assert only(run(s3, "put", "k2", "text"))[0] == "unavailable"
    assert "p/k2" not in s3.objects["bucket"]


def test_wrong_etag_of_the_right_bytes(s3, run):
    s3.on("PUT", faults.etag('"d41d8cd98f00b204e9800998ecf8427e"'))
    assert only(run(s3, "put", "k", "text"))[0] == "ok"
    assert s3.count("HEAD") == 1  # looked up


def test_store_whose_etags_are_no_md5(s3, run):
    s3.opaque_etags = True
    result = run(s3, "create", ",", "put", "a", "text", ",", "put", "b", "text", ",", "put", "b",
                 "text", ",", "put", "b", "tixt")
    assert result.codes == ["ok", "ok", "ok", "ok", "exists"]


def test_whole_object_for_a_range(s3, run):
    s3.objects["bucket"]["p/k"] = b"0123456789"
    s3.on("GET", faults.whole_for_range())
    result = run(s3, "range", "k", 3, 4, ",", "range", "k", 3, 4)
    assert result.codes == ["corrupt", "ok"] and result[1][1] == "3456"


def test_another_range(s3, run):
    s3.objects["bucket"]["p/k"] = b"0123456789"

    def shift(answer):
        answer.headers["Content-Range"] = "bytes 4-7/10"
    s3.on("GET", faults.changed(shift))
    assert only(run(s3, "range", "k", 3, 4))[0] == "corrupt"


def test_listing_that_is_none(s3, run):
    s3.on("LIST", faults.status(200, body=b"<html>Welcome to our network</html>"))
    assert only(run(s3, "list", ""))[0] == "unavailable"
    s3.on("LIST", faults.status(200, body=b""))
    assert only(run(s3, "list", ""))[0] == "unavailable"
    s3.on("LIST", faults.status(200, body=b"<ListBucketResult><Contents></ListBucketResult>"))
    assert only(run(s3, "list", ""))[0] != "ok"


def test_listing_with_a_document_type(s3, run):
    """libs3 never frees what libxml2 makes of one: some 15 KB a listing, for as long as the store says it."""
    s3.objects["bucket"]["p/k"] = b"1"

    def declared(answer):
        head, mark, rest = answer.body.partition(b"?>")
        answer.body = head + mark + b"<!DOCTYPE ListBucketResult>" + rest
        assert mark
    s3.on("LIST", faults.changed(declared))
    assert only(run(s3, "list", ""))[0] == "unavailable"


def test_listing_that_runs_in_a_circle(s3, run):
    s3.objects["bucket"].update({f"p/{i:04}": b"" for i in range(1500)})
    code, text = only(run(s3, "list", ""))
    assert code == "ok" and len(text.split()) == 1500
    s3.ignores_marker = True
    assert only(run(s3, "list", ""))[0] == "corrupt"


@pytest.mark.parametrize("count", [32, 64, 96, 100])
def test_listing_that_says_at_its_end_that_there_is_more(s3, run, count):
    """libs3 calls back for every 32 keys, and for the rest: behind 32, 64, ... it never says how a page ended."""
    s3.truncated_last, s3.page_keys = True, count
    s3.objects["bucket"].update({f"p/{i:04}": b"" for i in range(250)})
    code, text = only(run(s3, "list", ""))
    assert code == "ok" and len(text.split()) == 250


@pytest.mark.parametrize("last", [False, True])
def test_listing_that_names_none_and_says_there_is_more(s3, run, last):
    """Going on behind the last key would ask the same again, and an end it is not."""
    s3.truncated_last, s3.page_keys = last, 0
    s3.objects["bucket"].update({f"p/{i:04}": b"" for i in range(3)})
    assert only(run(s3, "list", ""))[0] == "unavailable"


def test_listing_with_foreign_keys(s3, run):
    s3.objects["bucket"].update({"p/good": b"1", "p/a&b": b"", "p/ä": b"", "p/.hidden": b"",
                                 "p/x//y": b"", "p/dir/": b"", "pq/other": b"", "o": b""})
    assert only(run(s3, "list", "")) == ("ok", "good=1 ")


def test_listing_of_another_prefix(s3, run):
    s3.objects["bucket"]["p/k"] = b"1"

    def elsewhere(answer):
        answer.body = answer.body.replace(b"<Key>p/k", b"<Key>q/k")
    s3.on("LIST", faults.changed(elsewhere))
    assert only(run(s3, "list"))[0] == "corrupt"


def test_stale_listing_is_handed_on(s3, run):
    """The store's word is all there is: the chain inside the objects shows what is missing."""
    s3.objects["bucket"].update({"p/a": b"", "p/b": b""})
    s3.list_cut_keys = {"p/b"}
    assert only(run(s3, "list", "")) == ("ok", "a=0 ")


# ---- section 9: what each error asks for ----

@pytest.mark.parametrize("status,code,rc", [
    (500, "InternalError", "unavailable"), (500, "", "unavailable"), (502, "", "unavailable"),
    (503, "ServiceUnavailable", "unavailable"), (504, "", "unavailable"), (429, "", "unavailable"),
    (429, "TooManyRequests", "unavailable"), (408, "RequestTimeout", "unavailable"),
    (400, "RequestTimeout", "unavailable"), (409, "ConditionalRequestConflict", "unavailable"),
    (409, "OperationAborted", "unavailable"), (400, "BadDigest", "unavailable"),
    (400, "XAmzContentSHA256Mismatch", "unavailable"), (400, "IncompleteBody", "unavailable"),
    (403, "AccessDenied", "denied"), (403, "InvalidAccessKeyId", "denied"),
    (403, "SignatureDoesNotMatch", "denied"), (403, "ExpiredToken", "denied"),
    (400, "ExpiredToken", "denied"), (403, "", "denied"), (401, "", "denied"),
    (404, "NoSuchBucket", "not_found"), (400, "InvalidBucketName", "invalid"),
    (405, "MethodNotAllowed", "invalid"), (501, "NotImplemented", "invalid"),
    (507, "XMinioStorageFull", "limit"), (507, "", "limit"), (403, "QuotaExceeded", "limit"),
    (400, "XMinioAdminBucketQuotaExceeded", "limit"), (400, "EntityTooLarge", "limit"),
    (413, "", "limit"), (400, "KeyTooLongError", "limit"), (400, "MetadataTooLarge", "limit"),
])
def test_error_classes(s3, run, status, code, rc):
    for kind, command in (("PUT", ("put", "k", "text")), ("GET", ("get", "k")),
                          ("LIST", ("list", ""))):
        s3.on(kind, faults.status(status, code, "the store's own words"))
        got, text = only(run(s3, *command))
        assert got == rc, text
        assert str(status) in text and code in text
        assert not code or "the store's own words" in text


def test_refusal_before_the_body_is_read(s3, run):
    s3.on("PUT", faults.status(403, "AccessDenied", "no", early=True), times=2)
    assert only(run(s3, "big", "k", 3 << 20))[0] == "denied"  # asked first, with Expect


def test_taken_name(s3, run):
    result = run(s3, "create", ",", "features", ",", "absent", "k", "a", ",", "absent", "k", "b",
                 ",", "absent", "k", "a", ",", "put", "k", "a", ",", "put", "k", "b", ",",
                 "get", "k")
    assert result.codes == ["ok", "ok", "ok", "exists", "exists", "ok", "exists", "ok"]
    assert result[1][1] == "1" and result[-1][1] == "a"


def test_store_that_ignores_if_none_match(s3, run):
    s3.honours_if_none_match = False
    result = run(s3, "create", ",", "features", ",", "absent", "k", "a", ",", "absent", "k", "b")
    assert result.codes == ["ok", "ok", "ok", "exists"]  # by a look before
    assert result[1][1] == "0"
    assert list(s3.objects["bucket"]) == ["p/k"]  # the probe is gone


def test_store_that_refuses_if_none_match(s3, run):
    s3.on("PUT", faults.status(501, "NotImplemented", "A header you provided"), key="probe/")
    result = run(s3, "create", ",", "features", ",", "put", "k", "a")
    assert result.codes == ["ok", "ok", "ok"] and result[1][1] == "0"
    assert all("if-none-match" not in headers for kind, key, headers in s3.requests
               if kind == "PUT" and not key.startswith("p/probe/"))


def test_probe_without_the_right_to_delete(s3, run):
    s3.on("DELETE", faults.status(403, "AccessDenied", "Access Denied."))
    result = run(s3, "create", ",", "features")
    assert result.codes == ["ok", "ok"] and result[1][1] == "1"


def test_clock_skew_names_both_clocks(s3, run):
    s3.on("PUT", faults.status(403, "RequestTimeTooSkewed", "too large",
                               headers={"Date": "Tue, 24 Nov 2026 18:00:00 GMT"}))
    code, text = only(run(s3, "put", "k", "text"))
    assert code == "denied" and "2026-11-24T18:00:00.000Z" in text and "clocks" in text


@pytest.mark.parametrize("status,code,message", [
    (400, "InvalidRequest", "The authorization mechanism you have provided is not supported. "
                            "Please use AWS4-HMAC-SHA256."),  # AWS
    (400, "InvalidRequest", "The V2 signature authorization mechanism is not supported. "
                            "Please use AWS4-HMAC-SHA256."),  # B2
    (400, "AuthorizationHeaderMalformed", "The authorization header is malformed"),
    (400, "InvalidArgument", "Authorization"),  # R2
    (400, "InvalidRequest", "Unsupported authorization method"),  # Garage
])
def test_store_that_wants_signature_v4(s3, run, status, code, message):
    s3.on("LIST", faults.status(status, code, message))
    rc, text = only(run(s3, "create"))
    assert rc == "denied"
    assert "wants Signature V4, not supported yet (AWS, R2, B2)" in text


def test_bucket_that_is_missing(s3, run):
    del s3.objects["bucket"]
    result = run(s3, "prepare", ",", "put", "k", "text", ",", "get", "k", ",", "list", "", ",",
                 "head", "k")
    assert result.codes == ["not_found"] * 5
    assert all("bucket" in text for _, text in result)
    assert run(s3, "create", ",", "put", "k", "text").codes == ["ok", "ok"]


def test_bucket_that_somebody_made_first(s3, run):
    s3.on("LIST", faults.status(404, "NoSuchBucket", "not yet"))
    s3.on("BUCKET", faults.status(409, "BucketAlreadyExists", "not yours"))
    s3.on("LIST", faults.status(403, "AccessDenied", "not yours"))
    assert only(run(s3, "create"))[0] == "denied"
    s3.on("LIST", faults.status(404, "NoSuchBucket", "not yet"))
    assert only(run(s3, "create"))[0] == "ok"  # 409, owned by you


def test_bucket_that_is_deleted_on_the_way(s3, run):
    s3.on("PUT", faults.status(404, "NoSuchBucket", "The bucket does not exist"), key="k2")
    result = run(s3, "create", ",", "put", "k1", "a", ",", "put", "k2", "b")
    assert result.codes == ["ok", "ok", "not_found"] and "bucket" in result[2][1]


@pytest.mark.parametrize("body", [b"404 page not found", b""])
def test_404_of_something_that_is_no_store(s3, run, body):
    """A proxy that has lost its backend is not an empty archive, and not a missing bucket."""
    s3.objects["bucket"]["p/k"] = b"text"
    page = faults.status(404, body=body)
    for kind, command in (("LIST", ("list", "")), ("LIST", ("create",)), ("GET", ("get", "k")),
                          ("PUT", ("put", "k2", "text")), ("HEAD", ("head", "k"))):
        s3.on(kind, page)
        assert only(run(s3, *command))[0] == "unavailable", command
    assert s3.count("BUCKET") == 0
    s3.honours_if_none_match = False
    s3.on("HEAD", page)
    assert run(s3, "create", ",", "absent", "k", "else").codes == ["ok", "unavailable"]
    assert s3.objects["bucket"]["p/k"] == b"text"


def test_416_for_a_whole_object(s3, run):
    s3.objects["bucket"]["p/k"] = b"text"
    s3.on("GET", faults.status(416, "InvalidRange", "not satisfiable"))
    assert only(run(s3, "get", "k"))[0] != "ok"


def test_head_where_the_bucket_is_gone(s3, run):
    """A HEAD has no body that could say so: the bucket is asked about."""
    del s3.objects["bucket"]
    code, text = only(run(s3, "head", "k"))
    assert code == "not_found" and "bucket" in text


# ---- what goes over the wire ----

def test_requests_as_they_should_be(s3, run):
    run(s3, "create", ",", "put", "k", "text", ",", "big", "b", 2 << 20, ",", "get", "k", ",",
        "range", "k", 0, 2)
    puts = [(key, headers) for kind, key, headers in s3.requests if kind == "PUT"]
    assert all("content-md5" in headers and headers["authorization"].startswith("AWS key:")
               for _, headers in puts)
    assert all(headers.get("if-none-match") == "*" for _, headers in puts)
    assert [headers.get("expect") for key, headers in puts if key == "p/k"] == [None]
    assert [headers.get("expect") for key, headers in puts if key == "p/b"] == ["100-continue"]
    assert all("delimiter" not in headers for _, headers in puts)


def test_one_connection_serves_many_calls(s3, run):
    accepted = []
    serve = s3._serve

    def counted(sock):
        accepted.append(1)
        serve(sock)
    s3._serve = counted
    words = ["create"]
    for i in range(10):
        words += [",", "put", f"k{i}", "text", ",", "get", f"k{i}"]
    assert set(run(s3, *words).codes) == {"ok"}
    assert len(accepted) == 1


def test_error_document_helper():
    assert b"<Code>A&amp;B</Code>" in error(400, "A&B").body
