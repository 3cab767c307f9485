"""BertViz' neuron view without what it needs to draw or to fetch: its numbers alone.

It brings a BERT of its own, of 2019. Importing that wants notebooks (IPython) and Amazon's client
(boto3), neither of which has a part in a number: they are stood in for, and fail where called.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

ABSENT: Mapping[str, tuple[str, ...]] = {
    "IPython": (),
    "IPython.display": ("display", "HTML", "Javascript"),
    "boto3": (),
    "botocore": (),
    "botocore.config": ("Config",),
    "botocore.exceptions": ("ClientError",),
}
"""Modules that BertViz imports, and what of them by name."""


class Words:
    """A tokenizer for `get_attention`: words stand for their numbers."""

    cls_token = sep_token = ""

    def __init__(self, first: int, last: int) -> None:
        self.cls_token, self.sep_token = str(first), str(last)

    def tokenize(self, text: str) -> list[str]:
        return text.split()

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [int(token) for token in tokens]


def neuron_view(config: Mapping[str, Any], weights: Mapping[str, Tensor], token_ids: list[int]
                ) -> dict[str, Tensor]:  # fmt: skip
    """What BertViz draws of a BERT that reads `token_ids`: `attn`, `queries` and `keys`, each
    [layers, heads, tokens, …].

    Skips the test where BertViz isn't installed.
    """
    with importable():
        modeling = import_module("bertviz.transformers_neuron_view.modeling_bert")
        view = import_module("bertviz.neuron_view")
        bert = modeling.BertModel(modeling.BertConfig(output_attentions=True, **config))
        missing, unexpected = bert.load_state_dict(dict(weights), strict=False)
        assert not missing, missing
        assert all("position_ids" in name for name in unexpected), unexpected
        first, *middle, last = token_ids
        with torch.inference_mode():
            text = " ".join(map(str, middle))
            seen = view.get_attention(bert, "bert", Words(first, last), text,
                                      include_queries_and_keys=True)["all"]  # fmt: skip
    return {name: torch.tensor(seen[name]) for name in ("attn", "queries", "keys")}


@contextmanager
def importable() -> Iterator[None]:
    """BertViz' modules can be imported meanwhile; none is left behind."""
    found = find_spec("bertviz")
    if found is None or found.origin is None:
        pytest.skip("bertviz is not installed: `make test` installs it, without what it requires")
    folder = Path(found.origin).parent
    before = dict(sys.modules)
    for name, attributes in ABSENT.items():
        stand_in = ModuleType(name)
        for attribute in attributes:
            setattr(stand_in, attribute, type(attribute, (), {}))
        sys.modules[name] = stand_in
    # The packages without their `__init__`, which import every family and view.
    for name in ("bertviz", "bertviz.transformers_neuron_view"):
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in {*ABSENT, "bertviz"}]:
            del sys.modules[name]
        sys.modules.update(before)
