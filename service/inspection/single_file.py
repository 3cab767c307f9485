"""The page in one file, with what it shows of a text lying in it: opens without a service.

The page finds an answer by the body that it would ask for. Which those are is told in its
`src/data/reading.ts` and `src/data/steps.ts`; here they are made the same way.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from service.errors import InvalidRequest
from service.inspection.encoding import NumberType, as_safetensors
from service.inspection.inquiry import DEFAULT_TOP, Inquiry, Part
from service.inspection.model import InspectedModel, Seen
from service.messages import Task

STATIC = files("service") / "inspection" / "static"
"""What `make page` builds."""

MOST_WEIGHTS = 2**21
"""Of layers whose patterns are asked for together."""
MOST_NUMBERS = 2**19
"""Of a layer whose heads are asked for together."""
MOST_BYTES = 24 * 2**20
"""Of answers in a file, as long as what is shown first is in it."""

STEPS = (Part.PATTERN, Part.SCORES, Part.Q, Part.K, Part.V)
LISTED = 200
"""Next tokens whose logits the page's sliders work on."""
LENS_POSITIONS = 40
"""Of which the page shows the logit lens: the last ones."""
OF_TASK: Mapping[Task, tuple[tuple[tuple[Part, ...], int], ...]] = {
    Task.EMBED: (((Part.POOLED, Part.SIMILARITY), DEFAULT_TOP),),
    Task.CLASSIFY: (((Part.CLASS_SCORES,), DEFAULT_TOP), ((Part.ATTRIBUTIONS,), DEFAULT_TOP)),
    Task.GENERATE: (
        ((Part.NEXT_TOKENS,), LISTED),
        ((Part.NEXT_TOKENS,), DEFAULT_TOP),
    ),
}
"""What else the page asks of a model, and for how many tokens."""

Look = Callable[[Inquiry], Seen]


def single_file(model: InspectedModel, look: Look, asked: Inquiry, layer: int, head: int) -> str:
    """The page as HTML that shows the head view of `layer` and `head` first.

    `look` answers inquiries into the texts of `asked`, of every layer as far as there is room.
    """
    name = model.card.name
    answers: dict[str, str] = {}
    size = 0
    for inquiry in inquiries(model.card.task, look, asked, layer, head):
        body = body_of(name, inquiry)
        if body in answers:
            continue
        try:
            seen = look(inquiry)
        except InvalidRequest:
            # Too much of so long a text, as the page says where it is asked for it.
            continue
        answer = as_safetensors(seen, NumberType.FLOAT16)
        answers[body] = base64.b64encode(answer).decode()
        size += len(answer)
        if size > MOST_BYTES:
            break
    state = {"model": name, "text": asked.text, "second": asked.second or ""}
    state |= {"layer": str(layer), "heads": str(head)}
    info: dict[str, Any] = {"name": name, "task": model.card.task}
    info |= {"max_tokens": model.card.max_tokens, "labels": list(model.card.labels)}
    return html({"address": urlencode(state), "models": [info], "answers": answers})


def inquiries(task: Task, look: Look, asked: Inquiry, layer: int, head: int) -> Iterator[Inquiry]:
    """What the page asks, that what is shown first needs coming first."""
    plain = Inquiry(asked.text, asked.second)
    beginning = replace(plain, layers=(0,), heads=(0,))
    yield beginning
    first = look(beginning).answer
    layers = max(stack["layers"] for stack in first["stacks"].values())
    yield patterns(plain, first, layer)
    yield steps(plain, first, layer, head)
    tokens = len(first["sequences"][-1]["tokens"])
    if task is Task.GENERATE:
        last = range(tokens - LENS_POSITIONS, tokens) if tokens > LENS_POSITIONS else None
        yield replace(plain, include=(Part.LOGIT_LENS,), positions=last and tuple(last))
    for include, top in (*OF_TASK.get(task, ()), ((Part.ROLLOUT,), DEFAULT_TOP)):
        yield replace(plain, include=include, top=top)
    for one in range(layers):
        yield patterns(plain, first, one)
        yield steps(plain, first, one, head)


def patterns(plain: Inquiry, first: Mapping[str, Any], layer: int) -> Inquiry:
    """The patterns of a layer, and of its neighbours as far as they are small."""
    counts = [len(sequence["tokens"]) for sequence in first["sequences"]]
    weights: list[int] = [
        first["stacks"][one["stack"]]["heads"] * counts[one["queries"]] * counts[one["keys"]]
        for one in first["attentions"]
    ]
    together = max(1, MOST_WEIGHTS // sum(weights))
    start = layer // together * together
    end = max(stack["layers"] for stack in first["stacks"].values())
    return replace(plain, layers=tuple(range(start, min(start + together, end))))


def steps(plain: Inquiry, first: Mapping[str, Any], layer: int, head: int) -> Inquiry:
    """What a head's weights are computed from, and those of its neighbours if that is little."""
    tokens = max(len(sequence["tokens"]) for sequence in first["sequences"])
    sizes: list[int] = [
        stack["heads"] * tokens * (3 * stack["head_dim"] + 2 * tokens)
        for stack in first["stacks"].values()
    ]
    has_bias = any(one["bias"] for one in first["attentions"])
    include = (*STEPS, Part.BIAS) if has_bias else STEPS
    heads = (head,) if sum(sizes) > MOST_NUMBERS else None
    return replace(plain, include=include, layers=(layer,), heads=heads)


def body_of(model: str, inquiry: Inquiry) -> str:
    """An inquiry in the words in which the page asks it (`bodyOf` in its `source.ts`)."""
    said = {
        "model": model,
        "text": inquiry.text,
        "second": inquiry.second,
        "include": inquiry.include,
        "layers": inquiry.layers,
        "heads": inquiry.heads,
        "positions": inquiry.positions,
        "top": None if inquiry.top == DEFAULT_TOP else inquiry.top,
        "label": inquiry.label,
    }
    known = {name: value for name, value in said.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"))


def html(inlined: Mapping[str, Any]) -> str:
    """The file: style, data and script in one. No `<` is left in the data that could end it."""
    data = json.dumps(inlined, ensure_ascii=False).replace("<", "\\u003c")
    style, script = ((STATIC / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>Anatomy</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f'<script type="application/json" id="inlined">{data}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )
