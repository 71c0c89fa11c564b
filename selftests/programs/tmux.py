# SPDX-License-Identifier: GPL-2.0
"""Somebody works in tmux: writes a text with vi in one window and uses a shell in another."""

import ctypes
import os
import subprocess
import threading
import time

from terminal import Terminal

TMUX = ("tmux", "-S", "socket", "-f", "tmux.conf")
LINES = [f"line {n}: " + "some words " * (n % 5) for n in range(30)]


class Screen(Terminal):
    """A client of tmux, on a terminal that is read all the time."""

    def __init__(self, *command):
        super().__init__(*TMUX, *command, term="screen")
        self.reader = threading.Thread(target=self.read_all)
        self.reader.start()

    def read_all(self):
        """Reads until the client ends."""
        self.status = super().end()

    def end(self):
        self.reader.join()
        return self.status


def ask(*command):
    """What the server says."""
    return subprocess.run(
        [*TMUX, *command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.rstrip()


def shows(text):
    """Waits until the current window shows it, and returns the last lines of that."""
    while text not in (pane := ask("capture-pane", "-p")):
        time.sleep(0.05)
    return pane.splitlines()[-2:]


def exists(name):
    """Waits for a file."""
    while not os.path.exists(name):
        time.sleep(0.01)


# The server, which goes into the background, stays in the tree of this process.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

with open("tmux.conf", "w", encoding="ascii") as conf:
    conf.write("set -s escape-time 10\n")
    # Keys that come together are keys.
    conf.write("set -g assume-paste-time 0\n")
    conf.write("set -g default-command 'bash --norc --noprofile'\n")

screen = Screen("new-session")
exists("socket")
shows("bash")
screen.type("PS1='<one> '; echo one > one\r")
exists("one")
screen.type("vi text\r")
shows("[New")
screen.type("i")
open("works", "w").close()
for line in LINES[:20]:
    screen.type(line + "\r")
    time.sleep(0.02)
shows(LINES[19].rstrip())

# A second window, while vi waits in the first one.
screen.type("\x02c")
screen.type("PS1='<two> '; echo two $((6 * 7)) | tee two\r")
exists("two")
print(shows("two 42\n<two>"))

# The client goes away and comes back.
screen.type("\x02d")
print("the client ended with", screen.end())
screen = Screen("attach")
while not ask("list-clients"):
    time.sleep(0.05)
screen.type("\x02p")
shows(LINES[19].rstrip())
for line in LINES[20:]:
    screen.type(line + "\r")
    time.sleep(0.02)
shows(LINES[29].rstrip())
screen.type("\x1b")
time.sleep(0.2)
screen.type(":2d\r:wq\r")
shows("<one>")
screen.type("exit\r")
shows("<two>")
screen.type("exit\r")
print("the client ended with", screen.end())
print("the server ended with", os.waitstatus_to_exitcode(os.wait()[1]))
with open("text", encoding="ascii") as file:
    lines = file.read().splitlines()
print(lines == [LINES[0]] + LINES[2:] + [""], *lines, sep="\n")
