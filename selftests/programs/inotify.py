# SPDX-License-Identifier: GPL-2.0
"""inotifywait says what happens to files."""

import os
import subprocess
import time

NAMES = ("in", "in/one", "in/two")

for name in NAMES:
    os.mkdir(name)
command = ["inotifywait", "-m", "--format", "%w %e %f", *NAMES]
with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
) as watcher:
    while watcher.stderr.readline() != "Watches established.\n":
        pass
    open("works", "w").close()
    for turn in range(40):
        directory = NAMES[turn % 3]
        with open(f"{directory}/new", "w", encoding="ascii") as file:
            file.write("text")
        os.rename(f"{directory}/new", f"{NAMES[turn % 2]}/renamed{turn}")
        # Read now and then, so that some events wait in the queue and some in the pipe.
        if turn % 4 == 3:
            while f"MOVED_TO renamed{turn}\n" not in (line := watcher.stdout.readline()):
                print(line, end="")
            print(line, end="")
        time.sleep(0.02)
    watcher.terminate()
    print(watcher.stdout.read(), end="")
print("it ended with", watcher.returncode)
