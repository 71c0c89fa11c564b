# SPDX-License-Identifier: GPL-2.0
"""A server and its clients on a unix socket: every line comes back, in order."""

import asyncio
import hashlib

CLIENTS = 5
LINES = 60


async def serve(reader, writer):
    """Returns each line."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def client(number):
    """Sends lines, which go out faster than they are read."""
    reader, writer = await asyncio.open_unix_connection("socket", limit=1 << 20)
    digest = hashlib.sha256()

    async def send():
        for count in range(LINES):
            writer.write(f"{number} {count} {'x' * (count * 997 % 40_000)}\n".encode())
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write_eof()

    sender = asyncio.create_task(send())
    count = 0
    while line := await reader.readline():
        digest.update(line)
        if not line.startswith(f"{number} {count} ".encode()):
            raise ValueError(f"client {number}, line {count}: {line[:50]}")
        count += 1
    await sender
    writer.close()
    return number, count, digest.hexdigest()


async def main():
    server = await asyncio.start_unix_server(serve, "socket", limit=1 << 20)
    async with server:
        clients = [asyncio.create_task(client(n)) for n in range(CLIENTS)]
        await asyncio.sleep(0.05)
        open("works", "w").close()
        for result in await asyncio.gather(*clients):
            print(*result)


asyncio.run(main())
