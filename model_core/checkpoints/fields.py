"""Reading a checkpoint's configuration so that no field goes unnoticed."""

from collections.abc import Hashable, Mapping
from math import isfinite
from typing import Any, TypeVar, cast

from model_core.config import ConfigError

T = TypeVar("T")

# What tells of training, of generation defaults or of the file itself, not of the model's shape.
NEUTRAL = frozenset(
    {
        "_name_or_path", "sentence_transformers", "sbert_ce_default_activation_function",
        "unsloth_fixed", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
        "pooler_size_per_head", "pooler_type",
        "architectures", "model_type", "transformers_version", "torch_dtype",
        "dtype", "use_cache", "initializer_range", "gradient_checkpointing", "pretraining_tp",
        "attention_probs_dropout_prob", "hidden_dropout_prob", "attention_dropout",
        "classifier_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "id2label",
        "label2id", "num_labels", "problem_type", "return_dict", "output_hidden_states",
        "output_attentions", "finetuning_task", "is_encoder_decoder", "chunk_size_feed_forward",
        "transformers.js_config", "_attn_implementation", "_attn_implementation_autoset",
        "tokenizer_class", "task_specific_params", "sep_token_id", "directionality",
        "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "prefix",
        "unk_token_id", "mask_token_id", "cls_token_id", "summary_type", "summary_use_proj",
        "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
        "summary_last_dropout", "output_past", "_num_labels", "torchscript", "use_bfloat16",
        "bad_words_ids", "do_sample", "early_stopping", "eos_token_ids", "length_penalty",
        "max_length", "min_length", "no_repeat_ngram_size", "num_beams", "num_return_sequences",
        "repetition_penalty", "temperature", "top_k", "top_p", "num_beam_groups",
        "diversity_penalty", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
        "output_scores", "return_dict_in_generate", "remove_invalid_values", "suppress_tokens",
        "begin_suppress_tokens", "typical_p", "tf_legacy_loss",
    }
)  # fmt: skip

# Says nothing, whatever the field (pruned_heads, layers_to_keep).
EMPTY: tuple[Any, ...] = (None, {}, [])


# Numbers that aren't sizes, and the one that stands for "none" in them.
MAY_BE_ZERO: Mapping[str, int] = {
    "type_vocab_size": 0, "max_window_layers": 0, "max_relative_positions": -1,
    "position_buckets": -1,
}  # fmt: skip
LARGEST = 2**24
"""Of a size: a vocabulary or a context of sixteen million."""


class Fields:
    """The fields of one configuration; `finish` refuses those that nobody took.

    `origin` names the file in error messages. All errors are `ConfigError`.
    """

    def __init__(self, values: Mapping[str, Any], origin: str) -> None:
        self.values = values
        self.origin = origin
        self.taken: set[str] = set()

    def take(self, name: str, kind: type[T], default: T | None = None) -> T:
        """The value of `name`, checked to be a `kind`; null counts as absent."""
        self.taken.add(name)
        value: Any = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ConfigError(f"{self.origin} has no field {name!r}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.origin}: {name!r} is {value!r}, expected {kind.__name__}")
        self._require_range(name, value)
        return value

    def _require_range(self, name: str, value: Any) -> None:
        """Refuse sizes below 1, or beyond what any machine holds, and numbers that aren't."""
        if isinstance(value, float) and not isfinite(value):
            raise ConfigError(f"{self.origin}: {name!r} is {value!r}, expected a finite number")
        if not isinstance(value, int) or isinstance(value, bool):
            return
        least = 0 if name in MAY_BE_ZERO or name.endswith("_id") else 1
        if not least <= value <= LARGEST and value != MAY_BE_ZERO.get(name):
            raise ConfigError(
                f"{self.origin}: {name!r} is {value!r}, expected {least} to {LARGEST}"
            )

    def choose(self, name: str, choices: Mapping[Any, T], default: Any = None) -> T:
        """What `choices` has for the value of `name`; another value is refused by name."""
        self.taken.add(name)
        value = self.values.get(name, default)
        if not isinstance(value, Hashable) or value not in choices:
            accepted = ", ".join(repr(choice) for choice in choices)
            raise ConfigError(
                f"{self.origin}: {name!r} is {value!r}, which is not supported; "
                f"accepted: {accepted}"
            )
        return choices[value]

    def require(self, name: str, *accepted: Any) -> None:
        """Refuse `name` unless it is absent, null or one of `accepted`."""
        self.choose(name, dict.fromkeys((None, *accepted)))

    def ignore(self, *names: str) -> None:
        """Take note of fields that say nothing of the shape (dropouts, weights of a loss)."""
        self.taken.update(names)

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The value of `name`, checked to be a `kind`; None where it is absent or null."""
        self.taken.add(name)
        return None if self.values.get(name) is None else self.take(name, kind)

    def nullable(self, name: str, kind: type[T], default: T) -> T | None:
        """The value of `name`, where null says that there is none: only absent means `default`."""
        return self.optional(name, kind) if name in self.values else default

    def sequence(self, name: str, kind: type[T]) -> tuple[T, ...] | None:
        """The values of a list, each checked to be a `kind`; None where it is absent or null."""
        items = cast("list[Any] | None", self.optional(name, list))
        if items is None:
            return None
        if not all(isinstance(item, kind) for item in items):
            raise ConfigError(
                f"{self.origin}: {name!r} is {items!r}, expected a list of {kind.__name__}"
            )
        return tuple(items)

    def nested(self, name: str) -> "Fields":
        """The fields of a nested configuration; empty when absent."""
        self.taken.add(name)
        values: Any = self.values.get(name) or {}
        if not isinstance(values, Mapping):
            raise ConfigError(f"{self.origin}: {name!r} is {values!r}, expected an object")
        return Fields(cast("Mapping[str, Any]", values), f"{self.origin}: {name}")

    def finish(self, prefix: str = "") -> None:
        """Refuse the fields (those under `prefix`) that were neither taken nor are neutral."""
        left = {
            name
            for name, value in self.values.items()
            if name.startswith(prefix) and name not in self.taken and value not in EMPTY
        } - NEUTRAL
        if left:
            raise ConfigError(f"{self.origin} has fields that are not supported: {sorted(left)}")
