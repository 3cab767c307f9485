"""The original Transformer: PyTorch's own layers, with embeddings and positions around them."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from tests.support.families.case import VOCAB, Case


class OriginalConfig(PretrainedConfig):
    model_type = "transformer"
    vocab_size: int = VOCAB
    target_vocab_size: int | None = None
    d_model: int = 32
    nhead: int = 4
    num_encoder_layers: int = 3
    num_decoder_layers: int = 2
    dim_feedforward: int = 48
    activation: str = "relu"
    max_position_embeddings: int = 64
    norm_first: bool = False
    final_norm: bool = False
    share_embeddings: bool = True
    scale_embedding: bool = True
    tie_word_embeddings: bool = True
    is_encoder_decoder: bool = True
    decoder_start_token_id: int = 2


class Layers(nn.Module):
    """A stack by the names of `nn.TransformerEncoder`, which insists on a final norm of its own."""

    def __init__(self, kind: Any, count: int, config: OriginalConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            kind(
                config.d_model, config.nhead, config.dim_feedforward, batch_first=True,
                activation=config.activation, norm_first=config.norm_first,
            )
            for _ in range(count)
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.d_model) if config.final_norm else None

    def forward(self, x: Tensor, *memory: Tensor, **masks: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *memory, **masks)
        return x if self.norm is None else self.norm(x)


class Original(PreTrainedModel):
    config_class = OriginalConfig
    has_head = False

    def __init__(self, config: OriginalConfig) -> None:
        super().__init__(config)
        dim, names = config.d_model, ("source_embedding", "target_embedding")
        sizes = (config.vocab_size, config.target_vocab_size or config.vocab_size)
        if config.share_embeddings:
            names = ("embedding", "embedding")
        self.source, self.target = names
        for name, size in zip(names, sizes, strict=True):
            self.add_module(name, nn.Embedding(size, dim))
        self.encoder = Layers(nn.TransformerEncoderLayer, config.num_encoder_layers, config)
        self.decoder = Layers(nn.TransformerDecoderLayer, config.num_decoder_layers, config)
        if self.has_head:
            self.output = nn.Linear(dim, sizes[-1], bias=False)
            self._tied_weights_keys = {"output.weight": f"{self.target}.weight"}
        self.post_init()

    def embed(self, name: str, token_ids: Tensor) -> Tensor:
        dim = self.config.d_model
        x = self.get_submodule(name)(token_ids)
        x = x * math.sqrt(dim) if self.config.scale_embedding else x
        waves = [
            [
                wave(place / 10000 ** (i / dim))
                for i in range(0, dim, 2)
                for wave in (math.sin, math.cos)
            ]
            for place in range(token_ids.shape[1])
        ]
        return x + torch.tensor(waves)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, **_: Tensor
    ) -> Any:
        padding = attention_mask == 0
        memory = self.encoder(self.embed(self.source, input_ids), src_key_padding_mask=padding)
        length = decoder_input_ids.shape[1]
        hidden = self.decoder(
            self.embed(self.target, decoder_input_ids),
            memory,
            tgt_mask=torch.ones(length, length).triu(1).bool(),
            memory_key_padding_mask=padding,
        )
        return BaseModelOutput(last_hidden_state=hidden)


class OriginalWithHead(Original):
    has_head = True

    def forward(self, *ids: Tensor, **more: Tensor) -> Any:
        return Seq2SeqLMOutput(logits=self.output(super().forward(*ids, **more).last_hidden_state))

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        max_new_tokens: int,
        suppress_tokens: list[int],
        **_more: Any,
    ) -> Tensor:
        found = torch.tensor([[self.config.decoder_start_token_id]])
        for _ in range(max_new_tokens):
            logits = self(input_ids, attention_mask, found).logits[:, -1]
            logits[:, [*found[0], *suppress_tokens]] = -torch.inf  # none comes twice
            found = torch.cat((found, logits.argmax(-1)[:, None]), dim=1)
        return found


HEADS = {"seq2seq": OriginalWithHead}

CASES = (
    Case("Transformer", "transformer", OriginalConfig, Original, HEADS),
    Case("Transformer, two vocabularies", "transformer",
         lambda: OriginalConfig(target_vocab_size=VOCAB + 5, share_embeddings=False,
                                activation="gelu"),
         Original, HEADS),
    Case("Transformer, pre-norm, untied", "transformer",
         lambda: OriginalConfig(norm_first=True, final_norm=True, tie_word_embeddings=False,
                                scale_embedding=False),
         Original, HEADS),
)  # fmt: skip
