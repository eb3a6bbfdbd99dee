"""Rules about the tree that no linter knows. Each finder is also shown something wrong, so that it can fail."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path for path in ROOT.glob("services/*/src/eb_*") if path.is_dir())
ROOMS = {
    "__init__", "__main__", "app", "settings", "api", "consumers", "jobs", "store", "tables", "domain", "flows",
    "outside", "py.typed", "__pycache__",
}  # fmt: skip
SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\w+(\s+\w+)?\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+(\s*\([^)]*\))?\s+AS\s*\("
    r"|CREATE\s+(TABLE|INDEX)|ALTER\s+TABLE|TRUNCATE\s)"
)
DATABASE_CLOCK = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp)\(\)"
    r"|\b(CURRENT_TIMESTAMP|CURRENT_DATE|LOCALTIMESTAMP)\b",
    re.IGNORECASE,
)
EDGES = {"libs/service-kit/src/eb_kit/web.py", "libs/service-kit/src/eb_kit/bus/takes.py"}
"""Where whatever went wrong with a request or a message is answered: once, for everybody."""
SECRETS = re.compile(
    r"(^|_)(signatures?|secrets?|h?macs?|tokens?|nonces?|verifiers?|cookies?|passwords?|codes?_digest)"
    r"(_(sha256|digest|hmac))?$|(^|_)(hmac|hexdigest|browser_sha256)$"
)
"""How what must not be guessed byte by byte is called."""
WORDS = {"README.md": 500, "ARCHITECTURE.md": 900}
MEDIAN_LINES, P90_LINES, MOST_LINES = 8, 25, 40


def sources(*patterns: str) -> list[Path]:
    found = (path for pattern in patterns for path in ROOT.glob(pattern))
    return sorted(path for path in found if "tests" not in path.parts and "__pycache__" not in path.parts)


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Give each string of a module with its line, docstrings left out."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def places(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    """Name where a string begins like the pattern (SQL) or holds it (the clock)."""
    look = pattern.match if pattern is SQL else pattern.search
    return [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        for line, text in texts_of(path.read_text())
        if look(text)
    ]


def function_lengths(source: str) -> dict[str, int]:
    """Give the lines of each function, from `def` to its end."""
    return {
        f"{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def swallows(source: str) -> list[int]:
    """Give the lines of handlers that take any exception."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        )
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]


def name_of(node: ast.AST) -> str:
    """Give the name by which an operand goes: of what is called, looked up, or the thing itself."""
    match node:
        case ast.Call(func=inner) | ast.Await(value=inner):
            return name_of(inner)
        case (
            ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name)))
        ):
            return name
    return ""


def plain_compares(source: str) -> list[int]:
    """Give the lines where a secret is compared by `==`, `!=` or `in`, which stop at the first difference.

    With a constant of the source nobody's secret is compared.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            operands = (node.left, *node.comparators)
            is_fixed = any(isinstance(one, ast.Constant) or name_of(one).isupper() for one in operands)
            if not is_fixed and any(SECRETS.search(name_of(one)) for one in operands):
                found.append(node.lineno)
    return found


def test_secrets_and_signatures_are_compared_in_constant_time() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources("services/*/src/**/*.py", "libs/*/src/**/*.py", "tools/src/**/*.py")
        for line in plain_compares(path.read_text())
    ]
    assert found == []


def test_sql_is_in_the_store_only() -> None:
    doors = [path for path in sources("services/*/src/**/*.py") if "store" not in path.with_suffix("").parts]
    assert places(doors, SQL) == []


def test_the_database_is_never_asked_for_the_time() -> None:
    # Not the owner's platform functions: they also serve people at psql, who set no time.
    assert (
        places(
            sources("services/*/src/**/*.py", "libs/*/src/**/*.py", "migrations/versions/*.py"),
            DATABASE_CLOCK,
        )
        == []
    )


def test_nothing_swallows_every_exception() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources("services/*/src/**/*.py", "libs/*/src/**/*.py")
        if str(path.relative_to(ROOT)) not in EDGES
        for line in swallows(path.read_text())
    ]
    assert found == []


def test_functions_are_short() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in sources("services/**/*.py", "libs/**/*.py", "tools/**/*.py", "migrations/*.py")
        for name, lines in function_lengths(path.read_text()).items()
    }
    assert statistics.median(lengths.values()) <= MEDIAN_LINES
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= P90_LINES
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_has_the_usual_rooms_only(service: Path) -> None:
    assert {path.stem if path.suffix == ".py" else path.name for path in service.iterdir()} <= ROOMS


@pytest.mark.parametrize("name", WORDS)
def test_documents_stay_short(name: str) -> None:
    assert len((ROOT / name).read_text().split()) <= WORDS[name]


def test_the_finders_find() -> None:
    strings = "def f():\n    '''SELECT is a word.'''\n    a = 'SELECT 1'\n    b = f'UPDATE t SET x = now()'\n"
    found = list(texts_of(strings))
    assert [line for line, text in found if SQL.match(text)] == [3, 4]
    assert [line for line, text in found if DATABASE_CLOCK.search(text)] == [4]
    assert function_lengths(strings) == {"f:1": 4}
    assert swallows("try:\n    pass\nexcept Exception:\n    pass\n") == [3]
    assert swallows("try:\n    pass\nexcept BaseException:\n    raise\n") == []


@pytest.mark.parametrize(
    "compare",
    [
        "signature == expected", "kept['code_hmac'] != made", "hmac.new(key, text).hexdigest() == given",
        "hmac.digest(a, b, c) == given.mac", "token in tokens", "row.token_sha256 != digest(given)",
    ],
)  # fmt: skip
def test_a_compare_that_tells_by_its_time_is_found(compare: str) -> None:
    assert plain_compares(f"def f():\n    return {compare}\n") == [2]
    assert (
        plain_compares(f"hmac.compare_digest(signature, expected) and secret == '' or {'LOCAL in secrets'}")
        == []
    )
