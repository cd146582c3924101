"""docs/measurements.md says what the code does."""

import ast
import inspect
import re
from pathlib import Path

from heartseg_jax.measure import checks, status
from heartseg_jax.measure.normal_ranges import RANGES, SOURCES, normal_range

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "measurements.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


def test_ranges_and_their_sources():
    for name in RANGES:
        low, high = normal_range(name)
        assert [name.replace("_", " "), f"{low:.0f} to {high:.0f}"] in [row[:2] for row in ROWS]
        assert set(RANGES[name].sources) <= set(SOURCES)
    for source in SOURCES:
        assert f"* {source.split()[0]} " in TEXT
    for reference in SOURCES.values():
        pages = re.search(r"\d+(\(\d+\))?:[\d-]+", reference)
        assert pages is None or pages[0] in " ".join(TEXT.split())


def test_every_rule_and_every_doubt_has_its_row():
    refusals = [row for row in ROWS if len(row) == 3]
    for check, rule in status.RULES.items():
        (row,) = [row for row in refusals if f"`{check}`" in row[0]]
        assert (row[1] == "structures that touch the border") == (rule.refuses == status.CUT)
        assert (row[2] == "are withheld") == rule.withholds
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(checks))) if isinstance(node, ast.Call)]
    doubts = {node.args[1].value for node in calls if getattr(node.func, "id", "") == "Finding"}
    assert len(doubts) == 13
    assert doubts == {row[0].strip("`") for row in ROWS if len(row) == 2 and row[0].startswith("`")}
