#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Asks MinIO inside its container whether it lives. The base image has no curl; bash has sockets.
exec 3<>/dev/tcp/127.0.0.1/9000 || exit 1
printf 'GET /minio/health/live HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r -t 4 _ code _ <&3
[ "$code" = 200 ]
