"""docs/pytorch.md and the tests of mechanisms say the same: a test for every cell, a cell for every test."""

import importlib
import re
from pathlib import Path

import pytest

from mechanisms import COLUMNS

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "pytorch.md"
HEAD = "| mechanism | `net(x)` | jets | losses | remark |"


def slug(title: str) -> str:
    """The name of a row as that of a function."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def rows(page: str) -> dict[str, dict[str, str]]:
    """The cells of every row of the tables of mechanisms, by slug and column."""
    found: dict[str, dict[str, str]] = {}
    for block in page.split("\n\n"):
        lines = block.strip().split("\n")
        if lines[0] != HEAD:
            continue
        for line in lines[2:]:
            title, *cells, _ = (cell.strip() for cell in line.strip("|").split("|"))
            assert slug(title) not in found, f"{title} stands there twice"
            found[slug(title)] = dict(zip(COLUMNS, cells, strict=True))
    return found


def found_in_tests() -> dict[str, dict[str, str]]:
    """The same from the tests that take a quantity."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(TESTS.glob("test_mechanisms*.py")):
        for name, test in vars(importlib.import_module(path.stem)).items():
            marks = getattr(test, "pytestmark", []) if name.startswith("test_") else []
            columns = [m.args[1] for m in marks if m.name == "parametrize" and m.args[0] == "quantity"]
            if not columns:
                continue
            skips = [m for m in marks if m.name == "skipif"]
            verdict = skips[0].kwargs["reason"] if skips else "raises" if name.endswith("_raises") else "yes"
            row = found.setdefault(name.removeprefix("test_").removesuffix("_raises"), dict.fromkeys(COLUMNS, "-"))
            row.update(dict.fromkeys(columns[0], verdict))
    return found


def test_every_cell_has_its_test():
    assert rows(PAGE.read_text()) == found_in_tests()


@pytest.mark.parametrize("change", ["row", "cell"])
def test_a_difference_is_seen(change):
    page = PAGE.read_text()
    line = next(line for line in page.split("\n") if line.startswith("| L-BFGS |"))
    changed = page.replace(line + "\n", "") if change == "row" else page.replace(line, line.replace("yes", "raises", 1))
    assert rows(changed) != found_in_tests()


def test_the_page_is_found():
    assert "(docs/pytorch.md)" in (PAGE.parents[1] / "README.md").read_text()
