"""How locust is called, by whoever calls it."""

import sys
from pathlib import Path

FILE = Path(__file__).with_name("locustfile.py")


def command_of(
    user: str, url: str, *, seconds: float, users: int, slos: Path, report: Path
) -> list[str]:
    """Users of one class without the web page, and where their report goes."""
    return [
        sys.executable, "-m", "locust", "-f", str(FILE), user, "--headless", "--only-summary",
        "--users", str(users), "--run-time", f"{seconds:g}s", "--host", url,
        "--slos", str(slos), "--report", str(report), "--loglevel", "WARNING",
    ]  # fmt: skip
