"""A translator of Marian's shape with random weights: 6 + 6 layers, 512 wide, 32,000 tokens.

No trained one of this size is at hand, and what is measured doesn't depend on the weights: every
row runs the same number of steps. Run by an interpreter that has transformers; argument: a folder.
"""

import sys
from pathlib import Path

from decoder_checkpoint import built, save_words

VOCABULARY = 32_000
# As in OPUS-MT's checkpoints.
END, UNKNOWN, PADDING = 0, 1, VOCABULARY - 1
NAMES = {END: "</s>", UNKNOWN: "<unk>", PADDING: "<pad>"}
SEED = 0
# The inverse root of the width: probabilities that differ, so that greedy answers can be compared.
SPREAD = 512**-0.5


def checkpoint(builds: Path) -> Path:
    """The checkpoint's folder, made unless an earlier run made it."""

    def make(folder: Path) -> None:
        import torch
        from transformers import MarianConfig, MarianMTModel

        torch.manual_seed(SEED)
        config = MarianConfig(
            vocab_size=VOCABULARY,
            d_model=512,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
            activation_function="swish",
            max_position_embeddings=512,
            scale_embedding=True,
            init_std=SPREAD,
            eos_token_id=END,
            forced_eos_token_id=None,
            pad_token_id=PADDING,
            decoder_start_token_id=PADDING,
        )
        MarianMTModel(config).save_pretrained(folder)
        words = [NAMES.get(token, f"w{token}") for token in range(VOCABULARY)]
        save_words(folder, words, unknown=NAMES[UNKNOWN], padding=NAMES[PADDING], end=NAMES[END])

    return built(builds / "marian-random", make)


if __name__ == "__main__":
    checkpoint(Path(sys.argv[1]))
