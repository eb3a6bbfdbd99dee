"""From the 204 that ends a session to the first 401 of its token, in every service.

    python bench/revocation.py --run-dir .run --count 1000

Sessions of the staff are made by the database's owner; each is ended by the Operator through the gateway, while every
service is asked directly, on its own port, until it refuses the token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from uuid import uuid4

import aiohttp
from common import record, world_at

from eb_auth.domain.tokens import Grant
from eb_auth.flows.signing import access_token
from eb_auth.flows.signing_in import Device, new_session
from eb_auth.store import members, sessions, sign_in
from eb_tools.files import read_json
from eb_tools.identity import ACTOR, owner_context
from eb_tools.layout import Layout

ASKED = {
    "auth": "/auth/me",
    "domain-verify": f"/verify/claims/{uuid4()}",
    "catalog": "/catalog/skus?limit=1",
    "metering-ingest": f"/metering/events/x?org_id={uuid4()}",
    "pricing": f"/pricing/charges/x/explain?org_id={uuid4()}",
    "ledger": "/partners?limit=1",
    "estimator": "/pricing/estimate",
}
PAUSE_S = 0.005
GIVE_UP_S = 10.0


async def make_tokens(run_dir: Path, count: int) -> list[tuple[str, str]]:
    """Make sessions of platform staff; give each with an access token."""
    layout = Layout(run_dir)
    secret = read_json(layout.secrets)["auth_seal"]
    env = {"EB_ENV": "local", "EB_AUTH_SECRET": secret, "EB_CLOCK_FILE": str(layout.clock)}
    made = []
    async with owner_context(read_json(layout.facts)["owner_dsn"], env) as context:
        for start in range(0, count, 100):
            async with context.begin(ACTOR) as tx:
                user = await sign_in.insert_user_once(tx, "revoked@staff.event-builder.local")
                await members.insert_platform_role_once(tx, user.user_id, "Operator")
                for _ in range(min(100, count - start)):
                    session = new_session(tx, user.user_id, None, Device("bench", "127.0.0.1"))
                    await sessions.insert_session(tx, session)
                    grant = Grant(user.user_id, session.session_id, None, ("Operator",), tx.now)
                    made.append((str(session.session_id), await access_token(tx, grant)))
    return made


async def until_refused(
    http: aiohttp.ClientSession, method: str, url: str, token: str, since: float
) -> float:
    """Ask until the answer is 401; give the seconds since the session ended."""
    while time.perf_counter() - since < GIVE_UP_S:
        asked_at = time.perf_counter()
        async with http.request(method, url, headers={"Authorization": f"Bearer {token}"}) as answer:
            await answer.read()
            if answer.status == 401:
                return max(0.0, asked_at - since)
        await asyncio.sleep(PAUSE_S)
    raise SystemExit(f"{url} still takes the token after {GIVE_UP_S} s")


async def run(run_dir: Path, count: int, at_once: int) -> dict[str, list[float]]:
    """Measure `count` revocations, so many side by side; give the latencies (s) by service."""
    ports = json.loads((run_dir / "stack.json").read_text())["ports"]
    urls = {name: f"http://127.0.0.1:{ports[name]}{path}" for name, path in ASKED.items()}
    found: dict[str, list[float]] = {name: [] for name in ASKED}
    tokens = await make_tokens(run_dir, count)
    gate = asyncio.Semaphore(at_once)
    async with world_at(run_dir) as world, aiohttp.ClientSession() as http:

        async def one(session_id: str, token: str) -> None:
            async with gate:
                for name, url in urls.items():
                    async with http.request(
                        _method(name), url, headers={"Authorization": f"Bearer {token}"}
                    ) as first:
                        if first.status == 401:
                            raise SystemExit(f"{name} refuses a good token")
                await world.api.call(
                    "DELETE", f"/auth/sessions/{session_id}", token=world.staff.operator_token
                )
                since = time.perf_counter()
                latencies = await asyncio.gather(
                    *(until_refused(http, _method(name), url, token, since) for name, url in urls.items())
                )
                for name, latency in zip(urls, latencies, strict=True):
                    found[name].append(latency)

        await asyncio.gather(*(one(*made) for made in tokens))
    return found


def _method(name: str) -> str:
    return "POST" if name == "estimator" else "GET"


def quantiles_ms(latencies: list[float]) -> dict[str, float]:
    """Give the middle, the 99th of a hundred and the longest, in milliseconds."""
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "max_ms": round(max(latencies) * 1000, 1),
    }


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, default=Path(".run"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=5)
    options = parser.parse_args()
    found = asyncio.run(run(options.run_dir, options.count, options.at_once))
    every = [latency for latencies in found.values() for latency in latencies]
    by_service = {name: quantiles_ms(latencies) for name, latencies in found.items()}
    record("revocation", {"count": options.count, **quantiles_ms(every), "services": by_service})
    return 0


if __name__ == "__main__":
    sys.exit(main())
