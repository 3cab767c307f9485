"""The checkpoints that every side starts from: the decoders', from one GGUF file, and what models
of random weights need.

transformers and torch, in the peers' own environments.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

FINISHED = "finished"


def built(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, filled by `build` unless an earlier run finished it."""
    finished = folder / FINISHED
    if not finished.exists():
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        finished.touch()
    return folder


def save_words(folder: Path, words: Sequence[str], *, unknown: str, padding: str, end: str) -> None:
    """A tokenizer for a model of random weights: each of `words` is a token, by its place."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    known = {word: token for token, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(known, unk_token=unknown))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, pad_token=padding, eos_token=end
    ).save_pretrained(folder)


def dequantised(gguf: Path, builds: Path) -> Path:
    """A folder of transformers with the weights of `gguf` in fp32, for peers that read those."""

    def build(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        # Without dequantize=True transformers keeps the blocks and can't save what it loaded.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)

    return built(builds / "smollm2-transformers", build)
