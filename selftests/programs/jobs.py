# SPDX-License-Identifier: GPL-2.0
"""Somebody works with the job control of bash on a terminal."""

import re
import time

from terminal import Terminal

# Counts until it is told to stop. Not for sh, which starts programs by vfork(2): a child that is stopped
# in the middle of that keeps its parent from stopping. By itself bash survives an interrupt that comes
# while its child is about to end well.
COUNT = """trap 'trap - INT; kill -INT $$' INT
i=0; until [ -e $1.stop ]; do echo $i; i=$((i + 1)); sleep 0.03; done > $1"""

shell = Terminal("bash", "--norc", "--noprofile")


def answer():
    """What is written until the next prompt."""
    text = shell.see(r"<\d+>\$ ").replace("\r", "")
    return re.sub(r"^(\[\d\]) \d+$", r"\1 PID", text, flags=re.M)


def call(command):
    """Types a command, and returns what it writes, without its echo."""
    shell.type(command + "\n")
    return answer().partition("\n")[2].splitlines()


def counted(name):
    """How far a job is."""
    try:
        with open(name, encoding="ascii") as file:
            numbers = file.read().split()
    except FileNotFoundError:
        return 0
    if numbers != [str(n) for n in range(len(numbers))]:
        print(f"{name} does not count: {numbers}")
    return len(numbers)


def watch(name):
    """Waits until a job has done something more."""
    before = counted(name)
    while counted(name) < before + 2:
        time.sleep(0.02)


with open("count.sh", "w", encoding="ascii") as script:
    script.write(COUNT)
with open("words", "w", encoding="ascii") as words:
    words.writelines(f"{n * 7919 % 503}\n" for n in range(500))

shell.see(r"[#$] ")
shell.type("PS1='<$?>$ '\n")
answer()
for turn in range(2):
    background, foreground = f"background{turn}", f"foreground{turn}"
    print(turn, call(f"bash count.sh {background} &"))
    watch(background)
    open("works", "w").close()

    # One in the foreground, stopped from the terminal.
    shell.type(f"bash count.sh {foreground}\n")
    watch(foreground)
    shell.type("\x1a")
    print(answer().splitlines()[1:])
    stopped = counted(foreground)
    print(call("jobs"))
    print(call("sort -n words | uniq | tail -n 2 | tac"))
    print(call("false | true; echo ${PIPESTATUS[@]}"))
    watch(background)
    if counted(foreground) != stopped:
        print("a stopped job has gone on")

    # It goes on in the background, and is interrupted in the foreground.
    print(call("bg %2"))
    watch(foreground)
    shell.type("fg %2\n")
    watch(foreground)
    shell.type("\x03")
    answer()
    print(call("echo $?; jobs"))

    # The other one ends in the foreground.
    shell.type("fg\n")
    watch(background)
    open(f"{background}.stop", "w").close()
    print(answer().splitlines()[1:], call("jobs"))
shell.type("exit 7\n")
print("the shell ended with", shell.end())
