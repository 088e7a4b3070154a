"""The generator of accept load, a process of its own: ``python -m bench.load``. Prints one JSON object.

Raw sockets on uvloop, so that the generator is not the bottleneck; its own processor time stands in its report.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from typing import Any

import uvloop

from bench.process import cpu_s
from bench.wire import head_of, request, task_request

_ACCEPTED = 202


class Load:
    """So many tasks over so many keep-alive connections, each connection sending its next when its last is answered."""

    def __init__(self, port: int, token: str, tasks: int, prefix: str) -> None:
        """``tasks`` in all, with task_ids of their own that begin so."""
        self._prefix = prefix
        self._port = port
        self._token = token
        self._tasks = tasks
        self._numbers = itertools.count()
        self._latencies_ms: list[float] = []
        self._refused = 0

    async def run(self, connections: int, agent_pid: int) -> dict[str, Any]:
        """Open all connections, then begin on all at once."""
        opened = [await self._open() for _ in range(connections)]
        agent_before_s, own_before_s, begin_s = cpu_s(agent_pid), time.process_time(), time.perf_counter()
        await asyncio.gather(*(self._send(reader, writer) for reader, writer in opened))
        wall_s = time.perf_counter() - begin_s
        agent_s, own_s = cpu_s(agent_pid) - agent_before_s, time.process_time() - own_before_s
        for _, writer in opened:
            writer.close()
        return {
            "rate": len(self._latencies_ms) / wall_s,
            "refused": self._refused,
            "latencies_ms": self._latencies_ms,
            "agent_cpu": agent_s / wall_s,
            "own_cpu": own_s / wall_s,
        }

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request("POST", "/heartbeat", self._token))
        await _answer(reader)
        return reader, writer

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (number := next(self._numbers)) < self._tasks:
            order = task_request(self._token, f"{self._prefix}-{number}", "echo ok\n")
            begin_s = time.perf_counter()
            writer.write(order)
            status = await _answer(reader)
            if status == _ACCEPTED:
                self._latencies_ms.append((time.perf_counter() - begin_s) * 1000)
            else:
                self._refused += 1


async def _answer(reader: asyncio.StreamReader) -> int:
    status, length = head_of(await reader.readuntil(b"\r\n\r\n"))
    await reader.readexactly(length)
    return status


def main() -> None:
    """Read the arguments; the token comes from the environment."""
    parser = argparse.ArgumentParser()
    for name in ("--port", "--agent-pid", "--connections", "--tasks"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--prefix", default="accept")
    given = parser.parse_args()
    load = Load(given.port, os.environ["AGP_TEST_TOKEN"], given.tasks, given.prefix)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(load.run(given.connections, given.agent_pid))
    except (OSError, EOFError) as error:
        sys.exit(f"bench.load: the agent is gone or closed a connection in the middle of it: {error}")
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
