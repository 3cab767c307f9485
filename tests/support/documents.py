"""Documents whose code is run: fenced blocks, and the values that a page says they have."""

import ast
import codeop
import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
ARROW = "# →"


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence, counted from 1."""

    language: str
    code: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(found["language"], found["code"], page.count("\n", 0, found.start()) + 1)
        for found in FENCE.finditer(page)
    ]


def dead_links(path: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading, of the repository."""
    dead: list[str] = []
    for found in LINK.finditer(FENCE.sub("", path.read_text(encoding="utf-8"))):
        target, anchor = found["target"], found["anchor"]
        if "://" in target:
            continue
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(found[0])
    return dead


def anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links."""
    page = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w -]", "", found["title"]).strip().lower().replace(" ", "-")
        for found in HEADING.finditer(page)
    }


def unpasteable(page: str) -> list[int]:
    """Lines of the Python blocks at which a plain interpreter stumbles when they are pasted.

    It takes an empty line for the end of a statement of several lines, and wants one there.
    """
    stumbled: list[int] = []
    for block in blocks(page):
        pending = ""
        for number, line in enumerate([*block.code.splitlines(), ""], block.line + 1):
            if block.language != "python":
                break
            try:
                is_whole = codeop.compile_command(f"{pending}{line}", "page", "single") is not None
            except SyntaxError:
                stumbled.append(number)
                is_whole = True
            pending = "" if is_whole else f"{pending}{line}\n"
    return stumbled


def run_page(page: str, name: str, namespace: dict[str, Any]) -> list[str]:
    """Run the page's Python blocks in order; returns what differs from what the page says.

    `# →` after an expression, or on the lines below it, says its value; a block of text after one
    of code says what that printed.
    """
    found = blocks(page)
    differences: list[str] = []
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            differences += run_block(block, name, namespace)
        said = after.code if after is not None and after.language == "text" else ""
        if unpadded(printed.getvalue()) != unpadded(said):
            differences.append(f"{name}:{block.line} printed\n{printed.getvalue()}")
    return differences


def run_block(block: Block, name: str, namespace: dict[str, Any]) -> Iterator[str]:
    """The same of one block."""
    lines = block.code.splitlines()
    claims = 0
    for statement in ast.parse(block.code).body:
        said = None
        if isinstance(statement, ast.Expr):
            said = claim(lines, statement)
        place = f"{name}:{block.line + statement.lineno}"
        ast.increment_lineno(statement, block.line)
        if said is None:
            exec(compile(ast.Module([statement], []), name, "exec"), namespace)
            continue
        claims += 1
        assert isinstance(statement, ast.Expr)
        value = plain(eval(compile(ast.Expression(statement.value), name, "eval"), namespace))
        if not agrees(value, said):
            yield f"{place} is {value!r}, the page says {said}"
    if claims != block.code.count(ARROW):
        yield f"{name}:{block.line} has an arrow that follows no expression"


def claim(lines: list[str], statement: ast.Expr) -> str | None:
    """What the page says of an expression, if anything."""
    end, column = statement.end_lineno or 0, statement.end_col_offset or 0
    # Columns of the syntax tree count bytes.
    rest = lines[end - 1].encode()[column:].decode().strip()
    below = [line.strip() for line in lines[end:]]
    if rest.startswith(ARROW):
        return rest.removeprefix(ARROW).strip()
    if rest or not below or not below[0].startswith(ARROW):
        return None
    said = below[0].removeprefix(ARROW)
    for line in below[1:]:
        if not line.startswith("#  "):
            break
        said += line.removeprefix("#")
    return said.strip()


def plain(value: Any) -> Any:
    """Tensors and shapes as lists and numbers."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def agrees(value: Any, said: str) -> bool:
    """Whether a value is the literal `said`, rounded to the digits written there."""
    return equal(value, ast.parse(said, mode="eval").body, said)


def equal(value: Any, node: ast.expr, said: str) -> bool:
    """The same of a part of the literal."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return (
            isinstance(value, list)
            and len(value) == len(node.elts)
            and all(equal(item, part, said) for item, part in zip(value, node.elts, strict=True))
        )
    expected = ast.literal_eval(node)
    if not isinstance(expected, float):
        return type(value) is type(expected) and value == expected
    digits = len((ast.get_source_segment(said, node) or "").partition(".")[2])
    # A little more than half a unit: a value may lie between two roundings.
    return isinstance(value, (int, float)) and abs(value - expected) <= 0.6 * 10.0**-digits


def unpadded(text: str) -> list[str]:
    """The lines without spaces at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
