# SPDX-License-Identifier: GPL-2.0
"""Workers that compute, and talk to their parent by pipes."""

import hashlib
import multiprocessing

WORKERS = 4
STEPS = 50


def work(number, requests, answers):
    """Answers each request with the next digest."""
    data = bytes([number])
    while (step := requests.recv()) is not None:
        for _ in range(400):
            data = hashlib.sha256(data).digest()
        answers.send((number, step, data.hex()))


def main():
    workers = []
    for number in range(WORKERS):
        from_parent, requests = multiprocessing.Pipe(False)
        answers, to_parent = multiprocessing.Pipe(False)
        worker = multiprocessing.Process(target=work, args=(number, from_parent, to_parent))
        worker.start()
        workers.append((worker, requests, answers))
    open("works", "w").close()
    for step in range(STEPS):
        for _, requests, _ in workers:
            requests.send(step)
        for _, _, answers in workers:
            print(*answers.recv(), flush=True)
    for worker, requests, _ in workers:
        requests.send(None)
        worker.join()
        print("ended with", worker.exitcode)


if __name__ == "__main__":
    main()
