"""How a checkpoint's authors have it generate: its `generation_config.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.load import read_json
from model_core.checkpoints.sources import Located
from model_core.config import ConfigError

# What is not done, and the values that ask for nothing.
NOT_DONE: Mapping[str, tuple[Any, ...]] = {
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "diversity_penalty": (0, 0.0),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1, 1.0),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "guidance_scale": (1, 1.0),
    "max_new_tokens": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "sequence_bias": ({}, []),
}


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """What is done unless a request asks for another. Sampling is a request's own business.

    `decoder_start` is what an encoder-decoder's target begins with, and empty where there is no
    encoder. `forced_first` and `forced_last` are the only tokens at the first and at the last
    step, `suppressed` never come (and beams count the probabilities among the others, if
    `renormalize`), `eos_ids` end a text. `max_length` counts the target with its
    start, or the prompt with its answer. `not_applied` names the settings that would change the
    result and are not done here.
    """

    decoder_start: tuple[int, ...] = ()
    forced_first: int | None = None
    forced_last: int | None = None
    suppressed: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    renormalize: bool = False
    max_length: int | None = None
    not_applied: tuple[str, ...] = ()


def read_generation(located: Located) -> GenerationDefaults:
    """Of `generation_config.json`; of `config.json` in a checkpoint older than that file.

    Ids of special tokens that the former lacks are the latter's. Raises `ConfigError` for a value
    that makes no sense, `CheckpointError` for a file that is no JSON.
    """
    files = located.files
    config = read_json(files["config.json"]) if "config.json" in files else {}
    own = "generation_config.json" in files
    values = read_json(files["generation_config.json"]) if own else config
    origin = "generation_config.json" if own else "config.json"
    special = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    known = {name: value for name, value in values.items() if value is not None}
    inherited = {name: config[name] for name in special if config.get(name) is not None}
    has_encoder = bool(config.get("is_encoder_decoder"))
    return generation_defaults(Fields({**inherited, **known}, origin), has_encoder=has_encoder)


def generation_defaults(fields: Fields, *, has_encoder: bool) -> GenerationDefaults:
    """Of the fields of either file; null is as good as absent."""
    values = fields.values
    not_applied = {
        name for name, neutral in NOT_DONE.items() if values.get(name) not in (None, *neutral)
    }
    beams = fields.take("num_beams", int, 1)
    early_stopping: Any = values.get("early_stopping") or False
    if early_stopping == "never":
        early_stopping = False
        not_applied.add("early_stopping")
    if beams > 1:
        # Of consequence where probabilities of several tokens are multiplied.
        not_applied |= {name for name in ("do_sample",) if values.get(name)}

    eos_ids = ids_of(fields, "eos_token_id")
    bos_ids = ids_of(fields, "bos_token_id")
    bad_words = cast("Sequence[Sequence[int]]", fields.sequence("bad_words_ids", list) or ())
    if any(len(word) > 1 for word in bad_words):
        not_applied.add("bad_words_ids")
    suppressed = {word[0] for word in bad_words if len(word) == 1 and word[0] not in eos_ids}
    suppressed.update(ids_of(fields, "suppress_tokens"))

    forced_first = ids_of(fields, "forced_bos_token_id")
    if values.get("force_bos_token_to_be_generated"):  # what BART's first checkpoints call it
        forced_first = forced_first or bos_ids
    forced_last = ids_of(fields, "forced_eos_token_id")
    if len(forced_last) > 1:
        not_applied.add("forced_eos_token_id")
    return GenerationDefaults(
        decoder_start=(ids_of(fields, "decoder_start_token_id") or bos_ids) if has_encoder else (),
        forced_first=forced_first[0] if forced_first else None,
        forced_last=forced_last[0] if len(forced_last) == 1 else None,
        suppressed=tuple(sorted(suppressed)),
        eos_ids=eos_ids,
        pad_id=fields.optional("pad_token_id", int),
        beams=beams,
        length_penalty=fields.take("length_penalty", float, 1.0),
        early_stopping=bool(early_stopping),
        renormalize=fields.take("renormalize_logits", bool, False),
        max_length=fields.optional("max_length", int),
        not_applied=tuple(sorted(not_applied)),
    )


def ids_of(fields: Fields, name: str) -> tuple[int, ...]:
    """A field that is one id or a list of them."""
    value: Any = fields.values.get(name)
    several = cast("list[Any]", value) if isinstance(value, list) else [value]
    ids = [] if value is None else several
    if not all(type(each) is int for each in ids):
        raise ConfigError(f"{fields.origin}: {name!r} is {value!r}, expected an id or ids")
    return tuple(ids)
