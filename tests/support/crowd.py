"""Many clients at one moment."""

import asyncio
import json
from collections.abc import Sequence

from support.agent_process import AgentProcess
from support.raw_http import request

_CONNECT_AT_ONCE_MAX = 200
"""A listening queue is finite."""


def post_at_once(agent: AgentProcess, tasks: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
    """Connect once for each task id and script, then send all at one moment; return status and body of each answer."""
    return asyncio.run(_post_all(agent, tasks))


async def _post_all(agent: AgentProcess, tasks: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
    connecting, ready = asyncio.Semaphore(_CONNECT_AT_ONCE_MAX), asyncio.Barrier(len(tasks))
    headers = agent.headers | {"Content-Type": "application/json", "Connection": "close"}

    async def post(task_id: str, script: str) -> tuple[int, str]:
        body = json.dumps({"task_id": task_id, "playbook": {"name": "playbook.sh", "content": script}})
        async with connecting:
            reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        await ready.wait()
        writer.write(request("POST", "/execute_task", headers, body.encode()))
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split(b" ", 2)[1]), answer.decode()

    return await asyncio.gather(*(post(*task) for task in tasks))
