# SPDX-License-Identifier: GPL-2.0
"""Clients write to a server, which has to have at the end all that it acknowledged."""

import os
import socket
import subprocess
import threading
import time

CLIENTS = 4
WRITES = 80

SERVER = (
    "redis-server --port 0 --unixsocket socket --save '' --appendonly yes --appendfsync everysec "
    "--enable-debug-command yes --logfile redis.log"
)


class Client:
    """One connection."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect("socket")
        self.stream = self.socket.makefile("rb")

    def send(self, *words):
        """Sends a request."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
        self.socket.sendall(text.encode())

    def answer(self):
        """Receives what the server says to a request."""
        line = self.stream.readline().decode().rstrip("\r\n")
        if line.startswith("$"):
            return self.stream.read(int(line[1:]) + 2)[:-2].decode()
        if line[:1] not in ("+", ":"):
            raise ValueError(f"answer {line!r}")
        return line[1:]

    def call(self, *words):
        """A request and its answer."""
        self.send(*words)
        return self.answer()


def write(number):
    """Writes some values, one after the other, and some together."""
    client = Client()
    for n in range(WRITES):
        if client.call("SET", f"key:{number}:{n}", f"value {number} {n} " * 20) != "OK":
            raise ValueError(f"write {n} of {number}")
        counts = range(n * 3 + 1, n * 3 + 4)
        for _ in counts:
            client.send("INCR", f"count:{number}")
        for count in counts:
            if (is_now := client.answer()) != str(count):
                raise ValueError(f"count of {number}: {is_now} instead of {count}")
        time.sleep(0.003)


with subprocess.Popen(["sh", "-c", f"exec {SERVER}"]) as server:
    while not os.path.exists("socket"):
        time.sleep(0.01)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    open("works", "w").close()
    master = Client()
    # A child that writes a snapshot while the others go on.
    print(master.call("BGREWRITEAOF"))
    for thread in threads:
        thread.join()
    print(master.call("DBSIZE"), "values", master.call("DEBUG", "DIGEST"))
    for number in range(CLIENTS):
        print(number, "counted to", master.call("GET", f"count:{number}"))
    # What is in its log has to give the same.
    while "aof_rewrite_in_progress:0" not in master.call("INFO", "persistence"):
        time.sleep(0.02)
    print(master.call("DEBUG", "LOADAOF"))
    print(master.call("DBSIZE"), "values", master.call("DEBUG", "DIGEST"))
    server.terminate()
print("the server ended with", server.returncode)
