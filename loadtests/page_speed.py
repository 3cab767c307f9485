"""How long the page of /inspect computes when another head is chosen, by the browser's own trace.

    python -m loadtests.page_speed            # minilm: 256 tokens, 12 heads
    python -m loadtests.page_speed --layer 3

Needs Debian's chromium and playwright (the extra `test`). Prints a row for each view: the median
and the largest time over all switches, of scripts alone and of all that the page's thread did,
layout and painting included.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Browser, Page, async_playwright

from loadtests.service_process import serve

TOKENS = 256
WORDS = ["time", "flies", "like", "an", "arrow", "and", "fruit", "flies", "like", "a", "banana"]
SCRIPTING = frozenset({
    "EvaluateScript", "EventDispatch", "FireAnimationFrame", "FunctionCall", "MajorGC", "MinorGC",
    "RunMicrotasks", "TimerFire", "v8.compile", "v8.run",
})  # fmt: skip
"""What Chromium's own tools count as scripting. Layout that a script forces is within it here."""
VIEWS = ("head", "neuron")


@dataclass(frozen=True, slots=True)
class Switch:
    """One head chosen in the place of another, in milliseconds on the page's main thread."""

    scripting_ms: float
    busy_ms: float


def covered_ms(intervals: Iterable[tuple[float, float]]) -> float:
    """How much time intervals of microseconds cover together: nested ones count once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1000


def switch_of(trace: dict[str, Any]) -> Switch:
    """What a trace says of the main thread of the page, which is the one that ran the scripts."""
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    mains = {
        (event["pid"], event["tid"])
        for event in trace["traceEvents"]
        if event.get("name") == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }

    def spans(names: frozenset[str]) -> list[tuple[float, float]]:
        return [
            (event["ts"], event["ts"] + event.get("dur", 0))
            for event in events
            if event["name"] in names and (event["pid"], event["tid"]) in mains
        ]

    return Switch(covered_ms(spans(SCRIPTING)), covered_ms(spans(frozenset({"RunTask"}))))


async def measured(browser: Browser, page: Page, head: int) -> Switch:
    """Choose a head, and wait until two more pictures have been drawn."""
    categories = ["devtools.timeline", "disabled-by-default-devtools.timeline", "toplevel", "v8"]
    await browser.start_tracing(page=page, categories=categories)
    await page.evaluate(
        """head => new Promise(done => {
          document.getElementById(`head-${head}`).click();
          requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)));
        })""",
        head,
    )
    return switch_of(json.loads(await browser.stop_tracing()))


async def switches(url: str, layer: int, rounds: int) -> dict[str, list[Switch]]:
    """Every head once a round, in each view."""
    text = " ".join((WORDS * TOKENS)[: TOKENS - 2])
    found: dict[str, list[Switch]] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for view in VIEWS:
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            state = {"model": "minilm", "text": text, "view": view, "layer": layer}
            await page.goto(f"{url}/inspect#{urlencode(state)}")
            await page.wait_for_selector(".token, .neuron-table tbody tr")
            rows = await page.locator(".column.keys .token, .neuron-table tbody tr").count()
            if rows != TOKENS:
                raise RuntimeError(f"the page shows {rows} tokens, not {TOKENS}")
            # What is asked once for each head has come, and functions are compiled.
            for head in range(12):
                await page.click(f"#head-{head}")
                await page.wait_for_selector(".stage:not(:has([aria-busy=true]))")
            found[view] = [
                await measured(browser, page, head) for _ in range(rounds) for head in range(12)
            ]
            await page.close()
        await browser.close()
    return found


def row_of(view: str, found: Sequence[Switch]) -> str:
    parts = [f"{view:8}"]
    for name in ("scripting_ms", "busy_ms"):
        values = [getattr(one, name) for one in found]
        parts.append(f"{statistics.median(values):8.1f} {max(values):8.1f}")
    return " | ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layer", type=int, default=0, help="of minilm, 0 to 5; default 0")
    parser.add_argument("--rounds", type=int, default=3, help="of all 12 heads; default 3")
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        sys.exit("chromium is not installed; make setup-tools brings it")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["minilm", "--plain", "--inspect"]
        with serve(arguments, log=Path(folder) / "service.log") as running:
            found = asyncio.run(switches(running.url, options.layer, options.rounds))
    print(f"{TOKENS} tokens, 12 heads; ms a switch, median and largest of {12 * options.rounds}")
    print("view     |    scripting      |  whole main thread")
    for view, some in found.items():
        print(row_of(view, some))


if __name__ == "__main__":
    main()
