# SPDX-License-Identifier: Apache-2.0
"""What the black-box tests stand on: the real programs as processes, a real MinIO or a directory as
the archive, load with a ledger outside the server, and the comparison of what a restore gave back
with what was acknowledged. Standard library and pytest only.

  env        where the programs are; skipping loudly
  wait       polling a condition with a generous limit (nothing here sleeps for luck)
  process    one child process: its log, its end by its id
  server     the `server` program, its status and its requests
  archive    a directory or a bucket as the archive: list, get, put, delete
  minio, s3  the MinIO process; the few S3 calls that tests need
  proxy      a TCP relay before MinIO: counts, delays, cuts
  load       clients that write, and the ledger of every acknowledgement
  oracle     rows and pages read and compared
  restoring  the `restore` program
  foreign    the stock `sqlite3` program against a database
  host       a host that misbehaves: calls that fail, a clock that is stepped (host_faults.c)
  host_walks lives of a server and of a restore in which the N-th call fails
  scene      one test's directory, seed and processes
"""
