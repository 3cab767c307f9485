"""One page of HTML that stands alone: no script, no font, nothing from elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loadtests.markdown import in_ms
from loadtests.report.figures import Figures, figures_of, write_json
from loadtests.report.plots import plots_of
from loadtests.rows import Row, write_csv
from loadtests.slos import Slos

FOLDER = Path(__file__).parent


def page_of(found: Figures, slos: Slos, plots: dict[str, str]) -> str:
    """The page, as text."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["in_ms"] = in_ms
    return environment.get_template("page.html").render(found=found, slos=slos.slos, plots=plots)


def write_reports(
    rows: Sequence[Row], slos: Slos, folder: Path, *, seconds: float, settings: dict[str, str]
) -> Figures:
    """`rows.csv`, `figures.json` and `report.html` in `folder`; gives the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    found = figures_of(rows, slos, seconds=seconds, settings=settings)
    write_csv(rows, folder / "rows.csv")
    write_json(found, folder / "figures.json")
    page = page_of(found, slos, plots_of(rows, slos, seconds))
    (folder / "report.html").write_text(page, encoding="utf-8")
    return found
