"""What stands around the faults: rules in less time, and the section of the page. In every run."""

import re

import yaml

from tests.faults.__main__ import BEGIN, END, PAGE, section, with_section
from tests.faults.prometheus import RULES, divided, faster
from tests.faults.seen import read_all


def test_durations_are_divided() -> None:
    assert divided("1h") == "120000ms"
    assert divided("30s") == "1000ms"


def test_rules_are_the_same_but_for_their_durations() -> None:
    durations = re.compile(r"\[\w+\]")
    given, made = (
        [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
        for text in (RULES.read_text(), faster(RULES.read_text()))
    )
    for before, after in zip(given, made, strict=True):
        assert durations.sub("[]", before["expr"]) == durations.sub("[]", after["expr"])
        assert before.keys() == after.keys()
        if "for" in before:
            assert after["for"] == divided(before["for"])


def test_the_section_is_what_the_figures_say() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert with_section(page, section(list(read_all()))) == page
