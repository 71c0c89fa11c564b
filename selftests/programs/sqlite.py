# SPDX-License-Identifier: GPL-2.0
"""Writers and readers of two databases, which keep each other out by locks; one shares memory, too."""

import hashlib
import os
import sqlite3
import sys
import time

TURNS = 40
ROWS = 10
MODES = ("delete", "wal")


def connect(mode):
    return sqlite3.connect(f"{mode}.db", isolation_level=None, timeout=60)


def write(mode):
    """One transaction after the other, each of which leaves the sum of all as it was."""
    db = connect(mode)
    for turn in range(TURNS):
        db.execute("begin immediate")
        for n in range(turn * ROWS, turn * ROWS + ROWS):
            db.execute("insert into numbers values (?, ?, ?)", (n, n, None))
            db.execute("insert into numbers values (?, ?, ?)", (-n - 1, -n, bytes([n % 256]) * 300))
        db.execute("commit")
        time.sleep(0.005)


def read(mode):
    """Never sees a part of a transaction."""
    db = connect(mode)
    count = 0
    while count < 2 * TURNS * ROWS:
        count, total = db.execute("select count(*), sum(value) from numbers").fetchone()
        if total or count % (2 * ROWS):
            raise ValueError(f"{mode}: {count} rows, their sum is {total}")
        time.sleep(0.005)


for mode in MODES:
    db = connect(mode)
    db.execute(f"pragma journal_mode = {mode}")
    db.execute("create table numbers (n integer primary key, value integer, data blob)")
    db.close()
children = {}
for mode in MODES:
    for work in (write, read):
        if (child := os.fork()) == 0:
            work(mode)
            sys.exit(0)
        children[child] = f"{mode} {work.__name__}"
open("works", "w").close()
while children:
    child, status = os.wait()
    if status:
        print(children[child], "ended with", os.waitstatus_to_exitcode(status))
    del children[child]
for mode in MODES:
    db = connect(mode)
    digest = hashlib.sha256()
    for row in db.execute("select * from numbers order by n"):
        digest.update(repr(row).encode())
    print(mode, db.execute("select count(*), sum(value) from numbers").fetchone())
    print(digest.hexdigest(), db.execute("pragma integrity_check").fetchone())
