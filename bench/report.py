"""Write the figures of bench/results.jsonl into docs/performance.md, between its marks; `--check` only compares.

    python bench/report.py [--check]

Each row is the newest run of its kind. What stands outside of the marks is written by people.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from common import RESULTS
from revocable import KINDS

from eb_tools.paths import repository

PAGE = repository() / "docs" / "performance.md"
MARKS = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)
FILLED = 20_000_000
Line = dict[str, Any]
PARTS = ("writer", "pricing", "ledger", "rating", "estimate")


def read() -> list[Line]:
    """Give all results, oldest first."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines() if line.strip()]


def newest(lines: Iterable[Line], kind: Callable[[Line], Any]) -> list[Line]:
    """Give the newest line of each kind, in the order the kinds first came."""
    found: dict[Any, Line] = {}
    for line in lines:
        found[kind(line)] = line
    return list(found.values())


def runs(lines: Iterable[Line], what: str, growth: str | None = None) -> Iterator[Line]:
    """Give the ingest runs of one kind; `growth` names the comparison they belong to, if any."""
    for line in lines:
        if line["bench"] == "ingest" and line.get("what") == what and line.get("growth") == growth:
            yield line


def shape_of(line: Line) -> tuple[Any, ...]:
    """Give what tells runs apart."""
    names = ("what", "spread", "is_mixed", "batch", "orgs", "skus", "minutes")
    return (*(line.get(name) for name in names), line.get("stored_events", 0) > FILLED)


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """Write a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def sender(line: Line) -> str:
    """Name who sends."""
    names = {"zipf": "Zipf, s = 1.1", "uniform": "equal shares", "hot": "one sends everything, one SKU"}
    mixed = ", each event of another organisation" if line["is_mixed"] else ""
    return names[line["spread"]] + mixed + stored(line)


def stored(line: Line) -> str:
    """Say how full the tables were."""
    count = line.get("stored_events", 0)
    return f", {round(count / 1e6)} M stored" if count > FILLED else ""


def end_to_end(lines: list[Line]) -> str:
    """End to end, by who sends."""
    head = (
        "organisations by",
        "end to end",
        "for",
        "µs CPU an event",
        "p50 / p99 of the 202",
        "lines an event",
        "run",
    )
    return table(
        head,
        (
            (
                sender(line), f"{line['end_to_end_ev_s']:,} ev/s", f"{line['seconds']} s",
                line["cpu_us_per_event"]["total"], f"{line['p50_ms']:.0f} / {line['p99_ms']:.0f} ms",
                round(line["ledger_lines"] / line["events"], 3), line["commit"],
            )
            for line in newest(runs(lines, "end_to_end"), shape_of)
        ),
    )  # fmt: skip


def ceilings(lines: list[Line]) -> str:
    """The raw ceilings of the same runs."""
    head = ("run", "COPY, unique key", "confirmed messages of 10 kB", "strict parser", "end to end / COPY")
    return table(
        head,
        (
            (
                sender(line), f"{line['copy_rows_s']:,} rows/s", f"{line['confirmed_msg_s']:,} /s",
                f"{line['parsed_ev_s']:,} ev/s", round(line["end_to_end_ev_s"] / line["copy_rows_s"], 3),
            )
            for line in newest(runs(lines, "end_to_end"), shape_of)
        ),
    )  # fmt: skip


def door(lines: list[Line]) -> str:
    """Accepted only, single events, latencies."""
    rows: list[tuple[Any, ...]] = []
    for line in newest(runs(lines, "accepted"), shape_of):
        rows.append(
            (
                f"accepted only, batches of 100{stored(line)}",
                f"{line['accepted_ev_s']:,} ev/s",
                line["commit"],
            )
        )
    for line in newest(runs(lines, "single"), shape_of):
        rows.append(
            (f"single events, accepted only{stored(line)}", f"{line['requests_s']:,} req/s", line["commit"])
        )
        rows.append(
            (
                f"single events, all running{stored(line)}",
                f"{line['requests_s_all_running']:,} req/s",
                line["commit"],
            )
        )
    for line in newest(runs(lines, "latency"), shape_of):
        at = f"open loop, {line['rate_ev_s']:,} ev/s{stored(line)}"
        ones = f"open loop, {line['single_rate_s']:,} single events/s{stored(line)}"
        rows += [
            (f"202, p50 / p99, {at}", f"{line['p50_ms']} / {line['p99_ms']} ms", line["commit"]),
            (
                f"202, p50 / p99, {ones}",
                f"{line['single_p50_ms']} / {line['single_p99_ms']} ms",
                line["commit"],
            ),
            (
                f"202 → ledger line, p50 / p99, {at}",
                f"{line['to_ledger_p50_ms']} / {line['to_ledger_p99_ms']} ms",
                line["commit"],
            ),
        ]
    return table(("what", "figure", "run"), rows)


def cpu(lines: list[Line]) -> str:
    """µs of CPU an event by process, side by side."""
    chosen = newest(runs(lines, "end_to_end"), shape_of)
    names = sorted(
        {name for line in chosen for name in line["cpu_us_per_event"]}, key=lambda n: (-_most(chosen, n), n)
    )
    shown = [name for name in names if _most(chosen, name) >= 0.5]
    rows = ((name, *(line["cpu_us_per_event"].get(name, 0) for line in chosen)) for name in shown)
    return table(("process", *map(sender, chosen)), rows)


def _most(lines: list[Line], name: str) -> float:
    return max(line["cpu_us_per_event"].get(name, 0) for line in lines)


def growth(lines: list[Line]) -> str:
    """Cost an event against one size at a time."""
    chosen = [line for line in lines if line["bench"] == "ingest" and line.get("growth")]
    rows = (
        (
            line["growth"], line["of"], line["cpu_us_per_event"]["total"], f"{line['end_to_end_ev_s']:,} ev/s",
            round(line["ledger_lines"] / line["events"], 3), line["commit"],
        )
        for line in newest(chosen, lambda line: (line["growth"], line["of"]))
    )  # fmt: skip
    return table(("grows", "size", "µs CPU an event", "end to end", "lines an event", "run"), rows)


def parts(lines: list[Line]) -> str:
    """The parts alone."""
    rows = []
    for line in newest((line for line in lines if line["bench"] in PARTS), lambda line: line["bench"]):
        told = {
            k: v for k, v in line.items() if k not in ("bench", "at", "commit", "python", "cores", "ratio")
        }
        figures = ", ".join(
            f"{name} {_cell(value)}" for name, value in told.items() if not isinstance(value, dict)
        )
        rows.append((line["bench"], f"`bench/{line['bench']}.py`", figures, line["commit"]))
    return table(("part", "command", "figures", "run"), rows)


def fill(lines: list[Line]) -> str:
    """Filling the tables."""
    chosen = newest((line for line in lines if line["bench"] == "fill"), lambda line: line["events"])
    rows = (
        (
            f"{line['events']:,}",
            f"{line['database_gb']} GB",
            f"{line['seconds']} s",
            f"{line['rows_per_s']:,}",
        )
        for line in chosen
    )
    return table(("events", "database", "took", "rows/s"), rows)


def checks(lines: list[Line]) -> str:
    """Credentials checked a second and core, by service."""
    line = newest(
        (line for line in lines if line["bench"] == "identity" and "services" in line), lambda _: None
    )
    rows = [
        (name, f"{rates['token']:,} /s", f"{rates['api_key']:,} /s", one["commit"])
        for one in line
        for name, rates in one["services"].items()
    ]
    return table(("service", "token seen before", "API key", "run"), rows)


def revocation(lines: list[Line]) -> str:
    """From the answer that takes a credential away to its refusal, by kind and service."""
    chosen = newest((line for line in lines if "kind" in line), lambda line: line["kind"])
    services = list(chosen[0]["services"]) if chosen else []
    rows = (
        (
            KINDS[line["kind"]],
            line["count"],
            *(_latencies(line["services"][name], name in line["recognised_only"]) for name in services),
            _latencies(line, False),
            line["commit"],
        )
        for line in chosen
    )
    return table(("taken away", "times", *services, "all", "run"), rows)


def _latencies(found: Line, is_recognised_only: bool) -> str:
    told = " / ".join(f"{found[name]:.0f}" for name in ("p50_ms", "p99_ms", "max_ms"))
    return f"{told} †" if is_recognised_only else told


def hierarchy(lines: list[Line]) -> str:
    """Seconds of moves, by size and by levels above."""
    (line,) = newest((line for line in lines if line["bench"] == "hierarchy"), lambda line: line["bench"])
    levels = sorted({move["levels"] for move in line["moves"]})
    took: dict[int, list[str]] = {}
    for move in sorted(line["moves"], key=lambda move: (move["orgs"], move["levels"])):
        took.setdefault(move["orgs"], []).append(f"{move['p50_s']:.2f} / {move['max_s']:.2f} s")
    head = ("organisations moved", *(f"{number} levels above, p50 / max" for number in levels), "run")
    return table(head, ((orgs, *figures, line["commit"]) for orgs, figures in took.items()))


def tree_pages(lines: list[Line]) -> str:
    """Milliseconds of the pages of a large tree."""
    (line,) = newest((line for line in lines if line["bench"] == "hierarchy"), lambda line: line["bench"])
    rows = (
        ("descendants, all pages, p50 / p99", f"{line['page_p50_ms']} / {line['page_p99_ms']} ms"),
        (
            "descendants, first and last tenth of the pages, p50",
            f"{line['first_pages_p50_ms']} and {line['last_pages_p50_ms']} ms",
        ),
        ("children, p99", f"{line['children_page_p99_ms']} ms"),
    )
    return table(("pages of 200", "figure", "run"), ((*row, line["commit"]) for row in rows))


BLOCKS = {
    "end_to_end": end_to_end, "ceilings": ceilings, "door": door, "cpu": cpu, "growth": growth, "parts": parts,
    "fill": fill, "checks": checks, "revocation": revocation,
    "hierarchy": hierarchy, "tree_pages": tree_pages,
}  # fmt: skip


def main() -> int:
    """Write the page, or compare; 1 where it differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    lines, page = read(), PAGE.read_text()
    written = MARKS.sub(lambda m: f"<!-- {m[1]} -->\n{BLOCKS[m[1]](lines)}\n<!-- end -->", page)
    if not asked.check:
        PAGE.write_text(written)
    elif written != page:
        print("docs/performance.md isn't what bench/results.jsonl says: run bench/report.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
