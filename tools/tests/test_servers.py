"""The private servers: ready when started, the same data after kill -9, gone when ended."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import asyncpg
import psutil

from eb_tools.postgres import PrivatePostgres
from eb_tools.rabbitmq import PrivateRabbitMQ


async def test_postgres_keeps_what_was_committed_before_a_kill(tmp_path: Path) -> None:
    async with PrivatePostgres(tmp_path / "postgres") as server:
        connection = await asyncpg.connect(server.owner_dsn())
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        first_pid = server.pid

        await server.kill()
        await server.restart()

        connection = await asyncpg.connect(server.owner_dsn())
        assert await connection.fetchval("SELECT one FROM kept") == 1
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        await connection.close()
        assert server.pid != first_pid
    assert not psutil.pid_exists(server.pid)
    server.forget()
    assert not server.data.exists()
    assert server.data.parent == server.folder or not server.data.parent.exists()


async def test_rabbitmq_keeps_its_queues_over_a_kill(tmp_path: Path) -> None:
    async with PrivateRabbitMQ(tmp_path / "rabbitmq") as node, aiohttp.ClientSession() as http:
        queue = f"{node.admin_url}/api/queues/%2F/kept"
        body = {"durable": True, "arguments": {"x-queue-type": "quorum"}}
        async with http.put(queue, json=body) as made:
            assert made.status == 201

        await node.kill()
        assert not node.is_alive
        await node.restart()

        async with http.get(queue) as found:
            assert (await found.json())["type"] == "quorum"
        beam = psutil.Process(node.pid)
        family = [beam, *beam.children(recursive=True)]
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []  # init is slow to collect orphans
