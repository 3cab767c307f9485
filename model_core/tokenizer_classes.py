"""Which tokenizer class of transformers means what: a table, for older files and for languages.

By the class that a checkpoint names: the reader of its files, the tokens with a role, the frame
around a text, the languages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from model_core.languages import MBART50_CODES, MBART_CODES, NLLB_CODES
from model_core.older_vocabularies import (
    M2M100_LANGUAGES,
    MARIAN_LANGUAGES,
    MBART50_LANGUAGES,
    MBART_LANGUAGES,
    NLLB_LANGUAGES,
    Built,
    Folder,
    LanguageTokens,
    albert,
    as_fairseq,
    as_trained,
    byte_level,
    deberta_v2,
    listed_before_languages,
    llama,
    marian,
    sentence_pieces,
    with_sentinels,
    word_end_bpe,
    word_pieces,
)
from model_core.subwords import (
    NO_FRAME,
    QWEN2_SPLIT,
    TYPED_PAIR,
    Frame,
    Splitting,
    bos_eos_frame,
)

Roles: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class TokenizerClass:
    """How a class of transformers reads older files; see the module."""

    build: Callable[[Folder], Built]
    roles: Roles
    frame: Callable[[Mapping[str, Any]], Frame]
    languages: LanguageTokens | None = None


def tokenizer_class(name: str) -> TokenizerClass | None:
    """The entry for a class's name, with or without the ending of its fast variant."""
    return CLASSES.get(name.removesuffix("Fast"))


# --- frames ---------------------------------------------------------------------------------------


def _always(frame: Frame) -> Callable[[Mapping[str, Any]], Frame]:
    return lambda _: frame


def _flagged(*, bos: bool) -> Callable[[Mapping[str, Any]], Frame]:
    """bos and eos as `add_bos_token` and `add_eos_token` say; `bos` where nothing does."""
    return lambda config: bos_eos_frame(
        bos=bool(config.get("add_bos_token", bos)), eos=bool(config.get("add_eos_token", False))
    )


TWO_SEPARATORS: Final = Frame("cls $A sep", "cls $A sep sep $B sep")
EOS_AFTER_EACH: Final = Frame("$A eos", "$A eos $B eos")
EOS_AT_THE_END: Final = Frame("$A eos", "$A $B eos")
LANGUAGE_FIRST: Final = Frame("language $A eos", "language $A $B eos")
LANGUAGE_LAST: Final = Frame("$A eos language", "$A $B eos language")

# --- tokens with a role, unless the checkpoint says otherwise -------------------------------------

BERT_ROLES: Final[Roles] = {
    role: f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")
}
FAIRSEQ_ROLES: Final = {
    "bos": "<s>",
    "eos": "</s>",
    "sep": "</s>",
    "cls": "<s>",
    "unk": "<unk>",
    "pad": "<pad>",
    "mask": "<mask>",
}
MPNET_ROLES: Final = {**FAIRSEQ_ROLES, "unk": "[UNK]"}
GPT2_ROLES: Final[Roles] = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
NEOX_ROLES: Final = {**GPT2_ROLES, "pad": "<|padding|>"}
QWEN2_ROLES: Final[Roles] = dict.fromkeys(("eos", "unk", "pad"), "<|endoftext|>")
ALBERT_ROLES: Final[Roles] = {
    "bos": "[CLS]",
    "eos": "[SEP]",
    "sep": "[SEP]",
    "cls": "[CLS]",
    "unk": "<unk>",
    "pad": "<pad>",
    "mask": "[MASK]",
}
DEBERTA_ROLES: Final = {**BERT_ROLES, "bos": "[CLS]", "eos": "[SEP]"}
BIG_BIRD_ROLES: Final = {**BERT_ROLES, "bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
T5_ROLES: Final = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
LLAMA_ROLES: Final = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
GEMMA_ROLES: Final = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"}


def _nllb_frame(config: Mapping[str, Any]) -> Frame:
    return LANGUAGE_LAST if config.get("legacy_behaviour", False) else LANGUAGE_FIRST


# --- the table ------------------------------------------------------------------------------------

BERT: Final = TokenizerClass(word_pieces, BERT_ROLES, _always(TYPED_PAIR))
GPT2: Final = TokenizerClass(partial(byte_level, Splitting()), GPT2_ROLES, _flagged(bos=False))
ROBERTA: Final = TokenizerClass(
    partial(byte_level, Splitting()), FAIRSEQ_ROLES, _always(TWO_SEPARATORS)
)
T5: Final = TokenizerClass(
    partial(sentence_pieces, with_sentinels), T5_ROLES, _always(EOS_AFTER_EACH)
)
QWEN2: Final = TokenizerClass(
    partial(byte_level, Splitting((QWEN2_SPLIT,), composes=True)),
    QWEN2_ROLES,
    _flagged(bos=False),
)

CLASSES: Final[Mapping[str, TokenizerClass]] = MappingProxyType(
    {
        "BertTokenizer": BERT,
        "DistilBertTokenizer": BERT,
        "ElectraTokenizer": BERT,
        "MPNetTokenizer": TokenizerClass(word_pieces, MPNET_ROLES, _always(TWO_SEPARATORS)),
        "OpenAIGPTTokenizer": TokenizerClass(word_end_bpe, {"unk": "<unk>"}, _always(NO_FRAME)),
        "GPT2Tokenizer": GPT2,
        "GPTNeoXTokenizer": TokenizerClass(
            partial(byte_level, Splitting(composes=True)), NEOX_ROLES, _flagged(bos=False)
        ),
        "RobertaTokenizer": ROBERTA,
        "BartTokenizer": ROBERTA,
        "Qwen2Tokenizer": QWEN2,
        "XLMRobertaTokenizer": TokenizerClass(
            partial(sentence_pieces, partial(as_fairseq, ())),
            FAIRSEQ_ROLES,
            _always(TWO_SEPARATORS),
        ),
        "AlbertTokenizer": TokenizerClass(albert, ALBERT_ROLES, _always(TYPED_PAIR)),
        "DebertaV2Tokenizer": TokenizerClass(deberta_v2, DEBERTA_ROLES, _always(TYPED_PAIR)),
        "BigBirdTokenizer": TokenizerClass(
            partial(sentence_pieces, as_trained), BIG_BIRD_ROLES, _always(TYPED_PAIR)
        ),
        "T5Tokenizer": T5,
        "MT5Tokenizer": T5,
        "LlamaTokenizer": TokenizerClass(llama, LLAMA_ROLES, _flagged(bos=True)),
        "GemmaTokenizer": TokenizerClass(
            partial(sentence_pieces, as_trained), GEMMA_ROLES, _flagged(bos=True)
        ),
        "MBartTokenizer": TokenizerClass(
            partial(sentence_pieces, partial(as_fairseq, MBART_CODES)),
            FAIRSEQ_ROLES,
            _always(LANGUAGE_LAST),
            MBART_LANGUAGES,
        ),
        "MBart50Tokenizer": TokenizerClass(
            partial(sentence_pieces, partial(as_fairseq, MBART50_CODES)),
            FAIRSEQ_ROLES,
            _always(LANGUAGE_FIRST),
            MBART50_LANGUAGES,
        ),
        "NllbTokenizer": TokenizerClass(
            partial(sentence_pieces, partial(as_fairseq, NLLB_CODES)),
            FAIRSEQ_ROLES,
            _nllb_frame,
            NLLB_LANGUAGES,
        ),
        "M2M100Tokenizer": TokenizerClass(
            partial(sentence_pieces, listed_before_languages),
            FAIRSEQ_ROLES,
            _always(LANGUAGE_FIRST),
            M2M100_LANGUAGES,
        ),
        "MarianTokenizer": TokenizerClass(
            marian, T5_ROLES, _always(EOS_AT_THE_END), MARIAN_LANGUAGES
        ),
    }
)
# For checkpoints that name no class: the one of their model type.
CLASS_OF_MODEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "albert": "AlbertTokenizer",
        "bart": "BartTokenizer",
        "bert": "BertTokenizer",
        "big_bird": "BigBirdTokenizer",
        "deberta-v2": "DebertaV2Tokenizer",
        "distilbert": "DistilBertTokenizer",
        "electra": "ElectraTokenizer",
        "gemma": "GemmaTokenizer",
        "gemma2": "GemmaTokenizer",
        "gemma3_text": "GemmaTokenizer",
        "gpt2": "GPT2Tokenizer",
        "gpt_neo": "GPT2Tokenizer",
        "gpt_neox": "GPTNeoXTokenizer",
        "gptj": "GPT2Tokenizer",
        "llama": "LlamaTokenizer",
        "m2m_100": "M2M100Tokenizer",
        "marian": "MarianTokenizer",
        "mbart": "MBartTokenizer",
        "mistral": "LlamaTokenizer",
        "mpnet": "MPNetTokenizer",
        "mt5": "T5Tokenizer",
        "openai-gpt": "OpenAIGPTTokenizer",
        "qwen2": "Qwen2Tokenizer",
        "qwen3": "Qwen2Tokenizer",
        "roberta": "RobertaTokenizer",
        "t5": "T5Tokenizer",
        "xlm-roberta": "XLMRobertaTokenizer",
    }
)
