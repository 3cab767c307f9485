"""The family tree: one file a family, each a config mapping and a table of key rules."""

from model_core.families.albert import ALBERT
from model_core.families.bart import BART
from model_core.families.bert import BERT
from model_core.families.bigbird import BIGBIRD
from model_core.families.deberta import DEBERTA
from model_core.families.distilbert import DISTILBERT
from model_core.families.electra import ELECTRA
from model_core.families.family import Family, find_family
from model_core.families.gemma2 import GEMMA2
from model_core.families.gemma3 import GEMMA3
from model_core.families.gpt1 import GPT1
from model_core.families.gpt2 import GPT2
from model_core.families.gpt_neo import GPT_NEO
from model_core.families.gpt_neox import GPT_NEOX
from model_core.families.gptj import GPTJ
from model_core.families.llama import LLAMA
from model_core.families.m2m_100 import M2M_100
from model_core.families.marian import MARIAN
from model_core.families.mbart import MBART
from model_core.families.mistral import MISTRAL
from model_core.families.modernbert import MODERNBERT
from model_core.families.mpnet import MPNET
from model_core.families.qwen2 import QWEN2
from model_core.families.qwen3 import QWEN3
from model_core.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from model_core.families.smollm3 import SMOLLM3
from model_core.families.t5 import MT5, T5
from model_core.families.transformer import TRANSFORMER

FAMILIES: tuple[Family, ...] = (
    ALBERT,
    BART,
    BERT,
    BIGBIRD,
    CAMEMBERT,
    DEBERTA,
    DISTILBERT,
    ELECTRA,
    GEMMA2,
    GEMMA3,
    GPT1,
    GPT2,
    GPTJ,
    GPT_NEO,
    GPT_NEOX,
    LLAMA,
    M2M_100,
    MARIAN,
    MBART,
    MISTRAL,
    MODERNBERT,
    MPNET,
    MT5,
    QWEN2,
    QWEN3,
    ROBERTA,
    SMOLLM3,
    T5,
    TRANSFORMER,
    XLM_ROBERTA,
)

__all__ = [
    "ALBERT",
    "BART",
    "BERT",
    "BIGBIRD",
    "CAMEMBERT",
    "DEBERTA",
    "DISTILBERT",
    "ELECTRA",
    "FAMILIES",
    "GEMMA2",
    "GEMMA3",
    "GPT1",
    "GPT2",
    "GPTJ",
    "GPT_NEO",
    "GPT_NEOX",
    "LLAMA",
    "M2M_100",
    "MARIAN",
    "MBART",
    "MISTRAL",
    "MODERNBERT",
    "MPNET",
    "MT5",
    "QWEN2",
    "QWEN3",
    "ROBERTA",
    "SMOLLM3",
    "T5",
    "TRANSFORMER",
    "XLM_ROBERTA",
    "Family",
    "find_family",
]
