"""The family tree: one file a family, each a config mapping and a table of key rules."""

from model_core.families.bert import BERT
from model_core.families.family import Family, Format, find_family
from model_core.families.llama import LLAMA

FAMILIES: tuple[Family, ...] = (BERT, LLAMA)

__all__ = ["BERT", "FAMILIES", "LLAMA", "Family", "Format", "find_family"]
