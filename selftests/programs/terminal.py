# SPDX-License-Identifier: GPL-2.0
"""A program on a pseudo terminal, and the one who sits in front of it."""

import fcntl
import os
import pty
import re
import struct
import termios


class Terminal:
    """What runs there has the terminal as its controlling one."""

    def __init__(self, *command, term="dumb"):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = term
            os.execvp(command[0], command)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.unread = ""

    def type(self, text):
        """Types it."""
        data = text.encode()
        while data:
            data = data[os.write(self.master, data) :]

    def see(self, pattern):
        """Waits for it to appear, and returns all up to it that was not returned before."""
        while not (match := re.search(pattern, self.unread)):
            self.unread += self.read()
        before = self.unread[: match.start()]
        self.unread = self.unread[match.end() :]
        return before

    def read(self):
        """What comes next."""
        try:
            data = os.read(self.master, 4096)
        except OSError:
            data = b""
        if not data:
            raise EOFError(f"the terminal was closed; unread: {self.unread!r}")
        return data.decode(errors="replace")

    def end(self):
        """Waits for the end of the program, and returns its exit status."""
        try:
            while True:
                self.read()
        except EOFError:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
