# SPDX-License-Identifier: GPL-2.0
"""Computes digits of pi with big integers and appends them to a file.

Gibbons' unbounded spigot: the state is six integers that grow with every digit, so whoever
loses a single bit of them gets wrong digits from there on.
"""

import sys


def digits():
    """Yields the digits of pi, one after the other, for ever."""
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
    while True:
        if 4 * q + r - t < n * t:
            yield n
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, l = (
                q * k,
                (2 * q + r) * l,
                t * l,
                k + 1,
                (q * (7 * k + 2) + r * l) // (t * l),
                l + 2,
            )


def main():
    path, count = sys.argv[1], int(sys.argv[2])
    line = ""
    with open(path, "a", encoding="ascii") as out:
        for index, digit in zip(range(1, count + 1), digits()):
            line += str(digit)
            if index % 50 == 0 or index == count:
                out.write(line + "\n")
                out.flush()
                line = ""


if __name__ == "__main__":
    main()
