"""Runs of bench/ingest.py one after another against one stack: `all` for the bars, `growth` for the table of sizes.

    python bench/series.py --run-dir .run all|growth|short

Each run makes its own organisations. Twelve minutes at most; a run that hangs is ended after five.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LONGEST_S = 300

SERIES: dict[str, tuple[str, ...]] = {
    "all": (
        "--what end_to_end,accepted,single,latency --seconds 60",
        "--spread uniform --seconds 60",
        "--spread hot --seconds 30",
        "--spread zipf --mixed --seconds 30",
        "--spread uniform --mixed --seconds 30",
    ),
    "short": (
        "--what end_to_end,accepted,single,latency --seconds 20",
        "--spread uniform --seconds 20",
        "--spread hot --seconds 20",
    ),
    "growth": (
        *(
            f"--growth batch --of {n} --batch {n} --connections {64 if n < 100 else 16}"
            for n in (1, 10, 100, 1000)
        ),
        *(f"--growth organisations --of {n} --orgs {n} --spread uniform" for n in (10, 100, 1000, 3000)),
        *(f"--growth SKUs --of {n} --skus {n}" for n in (1, 5, 20)),
        *(f"--growth minutes --of {n} --minutes {n}" for n in (1, 4, 30)),
    ),
}


def main() -> int:
    """Run a series; the number of runs that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, default=Path(".run"))
    parser.add_argument("series", choices=sorted(SERIES))
    asked = parser.parse_args()
    failed = 0
    for options in SERIES[asked.series]:
        seconds = [] if "--seconds" in options else ["--seconds", "10"]
        argv = [
            sys.executable,
            str(HERE / "ingest.py"),
            "--run-dir",
            str(asked.run_dir),
            *options.split(),
            *seconds,
        ]
        print(" ".join(argv[1:]), file=sys.stderr, flush=True)
        try:
            failed += subprocess.run(argv, check=False, timeout=LONGEST_S).returncode != 0
        except subprocess.TimeoutExpired:
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
