"""The demo data of a local run, its table, and `make demo`, which tells the story request by request."""

from __future__ import annotations

import asyncio
import json
import sys
from decimal import Decimal
from typing import Any

import aiohttp

from eb_tools.client import Api, ApiProblem, Credentials, Json, TimedOut
from eb_tools.files import read_json, write_json
from eb_tools.layout import Layout
from eb_tools.paths import run_dir
from eb_tools.stack import Stack
from eb_tools.story import BATCH, EVENTS, Bill, Story, Told, differences
from eb_tools.trouble import Trouble
from eb_tools.world import World

SHOWN_CHARACTERS = 400
HEADINGS = ("organisation", "SKU", "usage", "charge", "partner's share")


def load_and_show(layout: Layout) -> None:
    """Load the demo data if this stack has none yet, and print the first bill."""
    asyncio.run(_load_and_show(layout))


async def _load_and_show(layout: Layout) -> None:
    file = layout.folder / "demo.json"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        story = Story(_world(layout, http), lambda step: print(f"  {step}", flush=True))
        try:
            kept = read_json(file)
            told = Told.of_json(kept) if kept else await story.from_the_beginning(layout.mail_key)
            write_json(file, told.to_json())
            _complete_credentials(layout, told)
            show(await story.bills(told), layout, told)
        except (ApiProblem, TimedOut, aiohttp.ClientError) as error:
            raise Trouble(f"The demo data can't be loaded: {error}. See {layout.logs}.") from error


def _world(layout: Layout, http: aiohttp.ClientSession, watch: Any = None) -> World:
    staff = Credentials.read(layout.credentials)
    return World.at(Api(staff.gateway_url, http, watch), staff)


def _complete_credentials(layout: Layout, told: Told) -> None:
    """Let credentials.json name an organisation, its project and its key."""
    first = told.members[0]
    known = {"org_id": first.org_id, "project_id": first.project_id, "api_key": first.api_key}
    write_json(layout.credentials, read_json(layout.credentials) | known)


def show(bills: list[Bill], layout: Layout, told: Told) -> None:
    """Print the table and the links."""
    print(f"\nThe first bill of {told.members[0].name} ({told.domain}, verified)\n")
    print(table([row for bill in bills for row in rows_of(bill)]))
    url = read_json(layout.credentials)["gateway_url"]
    management = read_json(layout.facts)["ports"]["rabbitmq-management"]
    print(f"\n  API        {url}   (browse it: {url}/docs)")
    print(f"  RabbitMQ   http://127.0.0.1:{management}   (admin; password in {layout.secrets})")
    print(f"  mailbox    {layout.mail}")
    print(f"  tokens     {layout.credentials}\n", flush=True)


def rows_of(bill: Bill) -> list[tuple[str, ...]]:
    """Give a bill's rows: one a SKU, and their sum."""
    lines = sorted(bill.lines.items())
    rows = [
        ("", sku, f"{line.quantity.normalize():,f}", f"{line.gross:,}", f"{line.partner:,}")
        for sku, line in lines
    ]
    share = sum((line.partner for _, line in lines), Decimal(0))
    total = (bill.member.name, "all", "", f"AUD {bill.gross:,}", f"AUD {share:,}")
    return [total, *rows]


def table(rows: list[tuple[str, ...]]) -> str:
    """Set rows in columns, numbers to the right."""
    every = [HEADINGS, *rows]
    widths = [max(len(row[at]) for row in every) for at in range(len(HEADINGS))]
    lines = ["  ".join(_cell(row[at], widths[at], at) for at in range(len(row))) for row in every]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(f"  {line}".rstrip() for line in [lines[0], rule, *lines[1:]])


def _cell(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column >= 2 else text.ljust(width)


class Teller:
    """Prints headings and each exchange, long bodies and tokens cut."""

    def __init__(self) -> None:
        self._step = 0

    def tell(self, step: str) -> None:
        """Print a heading."""
        self._step += 1
        print(f"\n{self._step}. {step}", flush=True)

    def watch(self, method: str, path: str, body: object, status: int, answer: object) -> None:
        """Print a request and what came back."""
        sent = f" {_short(body)}" if body is not None else ""
        print(f"   {method} {path}{sent}\n     → {status} {_short(answer)}", flush=True)


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"[{len(value)} of them, the first: {_short(value[0])}]" if value else "[]"
    shown = {k: _hidden(k, v) for k, v in value.items()} if isinstance(value, dict) else value
    text = json.dumps(shown, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _hidden(name: str, value: object) -> object:
    return (
        "…" if name in ("access_token", "refresh_token", "key", "code") and isinstance(value, str) else value
    )


async def tell_story(layout: Layout) -> int:
    """Tell the whole story with a group of its own, check its sums; 1 when bill and estimate differ."""
    teller = Teller()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        world = _world(layout, http, teller.watch)
        story = Story(world, teller.tell)
        told = await story.from_the_beginning(layout.mail_key)
        wrong = await _compare(story, told, teller)
        teller.tell(f"all {EVENTS:,} events again, {BATCH} a request: no sum changes")
        await story.send_usage(told)
        wrong += await _compare(story, told, teller)
        world.api.on_exchange = None
        show(await story.bills(told), layout, told)
    print(
        "\n".join(wrong)
        if wrong
        else "Bill and estimate are equal to the cent, before and after the repetition."
    )
    return int(bool(wrong))


async def _compare(story: Story, told: Told, teller: Teller) -> list[str]:
    teller.tell("the bill is compared with the estimate for the same usage")
    events = told.events()
    bills = await story.bills(told)
    estimates: list[Json] = [await story.estimate(member, events[member.org_id]) for member in told.members]
    return list(differences(bills, estimates))


def main() -> int:
    """Tell the story against the stack of `EB_RUN_DIR`; one that runs nowhere is started for it and ended after."""
    stack = Stack(run_dir())
    started_here = not stack.is_running
    try:
        stack.up(print)
        return asyncio.run(tell_story(stack.layout))
    except (Trouble, ApiProblem, TimedOut, aiohttp.ClientError) as error:
        print(f"The story ends here: {error}", file=sys.stderr)
        return 1
    finally:
        if started_here:
            stack.down()


if __name__ == "__main__":
    sys.exit(main())
