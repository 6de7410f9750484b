# SPDX-License-Identifier: Apache-2.0
"""The few S3 calls that tests need (list, get, put, delete, buckets), signed with Signature V4."""

import datetime
import hashlib
import hmac
import http.client
import urllib.parse
import xml.etree.ElementTree as ElementTree


class S3Error(Exception):
    def __init__(self, code, body):
        super().__init__(f"{code}: {body[:300]!r}")
        self.code = code


class S3:
    def __init__(self, port, access_key, secret_key):
        self.port, self.access_key, self.secret_key = port, access_key, secret_key

    def call(self, method, path, query=None, body=b"", allow=()):
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        path = urllib.parse.quote(path, safe="/-_.~")
        query_text = urllib.parse.urlencode(sorted((query or {}).items()), safe="-_.~",
                                            quote_via=urllib.parse.quote)
        digest = hashlib.sha256(body).hexdigest()
        host = f"127.0.0.1:{self.port}"
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join([method, path, query_text, lines, names, digest])
        scope = f"{day}/us-east-1/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope,
                             hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + self.secret_key).encode()
        for part in (day, "us-east-1", "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
                                    f"SignedHeaders={names}, Signature={signature}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            target = path + ("?" + query_text if query_text else "")
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 300 and answer.status not in allow:
            raise S3Error(answer.status, data)
        return data

    def list(self, bucket, prefix=""):
        """{key: (size, etag)}; an absent bucket is empty."""
        found, token = {}, None
        while True:
            query = {"list-type": "2", "prefix": prefix}
            if token:
                query["continuation-token"] = token
            try:
                root = ElementTree.fromstring(self.call("GET", f"/{bucket}", query))
            except S3Error as error:
                if error.code == 404:
                    return {}
                raise
            space = root.tag.split("}")[0] + "}" if "}" in root.tag else ""
            for item in root.iter(space + "Contents"):
                found[item.find(space + "Key").text] = (int(item.find(space + "Size").text),
                                                        item.find(space + "ETag").text)
            token = root.findtext(space + "NextContinuationToken")
            if not token:
                return found

    def get(self, bucket, key):
        return self.call("GET", f"/{bucket}/{key}")

    def put(self, bucket, key, data):
        self.call("PUT", f"/{bucket}/{key}", body=data)

    def delete(self, bucket, key):
        self.call("DELETE", f"/{bucket}/{key}")

    def make_bucket(self, bucket):
        self.call("PUT", f"/{bucket}", allow=(409,))

    def delete_bucket(self, bucket):
        for key in self.list(bucket):
            self.delete(bucket, key)
        self.call("DELETE", f"/{bucket}", allow=(404,))
