"""What `make faults` makes of the alerts' rules and of its page; fast, so part of every run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.faults.__main__ import BEGIN, END, with_section
from tests.faults.prometheus import FASTER, RULES, UNITS_S, divided, faster

DURATION = re.compile(r"\b(\d+)(ms|[smhd])\b")


def durations_s(expression: str) -> list[float]:
    """The windows of an expression."""
    units_s = {**UNITS_S, "ms": 0.001}
    return [
        int(count) * units_s[unit]
        for window in re.findall(r"\[(\w+)\]", expression)
        for count, unit in DURATION.findall(window)
    ]


def test_every_window_is_divided_and_nothing_else_changes() -> None:
    before = yaml.safe_load(RULES.read_text())["groups"]
    after = yaml.safe_load(faster(RULES.read_text()))["groups"]
    seen = 0
    for old, new in zip(before, after, strict=True):
        for rule, quick in zip(old["rules"], new["rules"], strict=True):
            windows = durations_s(rule["expr"])
            assert durations_s(quick["expr"]) == pytest.approx([w / FASTER for w in windows])
            without = [re.sub(r"\[\w+\]", "[]", each["expr"]) for each in (rule, quick)]
            assert without[0] == without[1]
            assert quick.get("for") == (divided(rule["for"]) if "for" in rule else None)
            others = rule.keys() - {"expr", "for"}
            assert {name: quick[name] for name in others} == {name: rule[name] for name in others}
            seen += len(windows)
    assert seen > 10


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool isn't installed (make setup-tools)"
)
def test_promtool_takes_the_faster_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(faster(RULES.read_text()))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_section_of_a_run_replaces_the_one_before() -> None:
    page = "# Faults\n\n## What isn't held\n\n- this\n"
    first = with_section(page, f"{BEGIN}\none\n{END}")
    assert first.index("one") < first.index("## What isn't held")
    assert with_section(first, f"{BEGIN}\ntwo\n{END}") == first.replace("one", "two")
