"""From the sampling fields of OpenAI's bodies to `Sampling`: defaults, and checks over fields."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.api.openai_types import ChatBody, CompletionsBody, SamplingBody
from service.errors import InvalidRequest, TooManyTokens
from service.messages import GenerationModel, Sampling

COMPLETION_MAX_TOKENS = 16
SEEDS = 2**63
SAMPLES = {"temperature": (0.0,), "top_p": (1.0,), "top_k": (0, -1), "min_p": (0.0,)}
"""Fields of sampling, with the values that ask for none of it."""
SEARCHES = {"best_of": (1,), "length_penalty": (1.0,), "early_stopping": (False,)}
"""Fields of a beam search, likewise."""


def completion_sampling(body: CompletionsBody, model: GenerationModel, prompt: int) -> Sampling:
    """How a prompt of `prompt` tokens is continued; 16 tokens, or the room left, by default.

    What answers a source ends by itself, and may take all the room.
    """
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest(
            "max_tokens is 0, which asks for the prompt alone and needs echo to be true; without "
            "it 1 is the least",
            field="max_tokens",
        )
    room = _room(model, prompt, "prompt", least=0 if body.max_tokens == 0 else 1)
    usual = room if model.card.generation.has_source else min(COMPLETION_MAX_TOKENS, room)
    max_tokens = usual if body.max_tokens is None else body.max_tokens
    found = _sampling(body, model, prompt, "max_tokens", max_tokens, body.logprobs)
    return replace(found, prompt_logprobs=bool(body.echo) and body.logprobs is not None)


def chat_sampling(body: ChatBody, model: GenerationModel, prompt: int) -> Sampling:
    """How a conversation of `prompt` tokens is answered; with all the room left by default."""
    room = _room(model, prompt, "messages")
    limits = {
        "max_completion_tokens": body.max_completion_tokens,
        "max_tokens": body.max_tokens,
    }
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(set(given.values())) > 1:
        raise InvalidRequest(
            f"max_tokens {body.max_tokens} and max_completion_tokens "
            f"{body.max_completion_tokens} differ; send one of them",
            field="max_tokens",
        )
    field, max_tokens = next(iter(given.items()), ("max_tokens", room))
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest(
            f"top_logprobs {body.top_logprobs} needs logprobs to be true", field="top_logprobs"
        )
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _sampling(body, model, prompt, field, max_tokens, top_logprobs)


def for_choice(sampling: Sampling, choice: int) -> Sampling:
    """The sampling of one of a prompt's `n` continuations: each has a seed of its own."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=(sampling.seed + choice) % SEEDS)


def _room(model: GenerationModel, prompt: int, field: str, least: int = 1) -> int:
    room = model.card.room(prompt)
    if room < least:
        raise TooManyTokens(
            f"{field} has {prompt} tokens; model {model.card.name!r} holds "
            f"{model.card.max_tokens} with the continuation, which needs {least} at least",
            field=field,
        )
    return room


def _sampling(
    body: SamplingBody,
    model: GenerationModel,
    prompt: int,
    max_tokens_field: str,
    max_tokens: int,
    top_logprobs: int | None,
) -> Sampling:
    room = model.card.room(prompt)
    if max_tokens > room:
        raise TooManyTokens(
            f"{max_tokens_field} is {max_tokens} and the prompt has {prompt} tokens; model "
            f"{model.card.name!r} has room for {room} more, of {model.card.max_tokens}",
            field=max_tokens_field,
        )
    min_tokens = body.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidRequest(
            f"min_tokens {min_tokens} is over {max_tokens_field}, {max_tokens}",
            field="min_tokens",
        )
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream to be true", field="stream_options")
    beams = _beams(body, model)
    if beams > 1 and top_logprobs is not None:
        raise InvalidRequest("logprobs is not supported with a beam search", field="logprobs")
    own = model.card.generation
    searches = beams > 1 or bool(body.use_beam_search)
    # Models that answer a source were made to be searched, those that continue to be sampled.
    temperature = 0.0 if searches or (own.has_source and not _samples(body)) else 1.0
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=0 if body.top_k is None else max(body.top_k, 0),
        min_p=0.0 if body.min_p is None else body.min_p,
        seed=None if body.seed is None else body.seed % SEEDS,
        stop=_stop(body.stop),
        ignore_eos=bool(body.ignore_eos),
        min_tokens=min_tokens,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        logit_bias=_logit_bias(body.logit_bias or {}, model.tokenizer.vocab_size),
        top_logprobs=top_logprobs,
        beams=beams,
        length_penalty=own.length_penalty if body.length_penalty is None else body.length_penalty,
        early_stopping=own.early_stopping if body.early_stopping is None else body.early_stopping,
    )


def _samples(body: SamplingBody) -> bool:
    """Whether the request asks for a draw: a temperature, or a filter that leaves some out.

    Many clients send filters at the values that leave none out.
    """
    return body.temperature is not None or any(
        getattr(body, name) is not None and getattr(body, name) not in neutral
        for name, neutral in SAMPLES.items()
    )


def _beams(body: SamplingBody, model: GenerationModel) -> int:
    """How many beams there are: those asked for, else those of the model's authors."""
    own, limit = model.card.generation.beams, model.card.max_beams
    searches = body.use_beam_search
    if searches is None:
        searches = own > 1 and not _samples(body)
    if not searches:
        _refuse(body, SEARCHES, "needs use_beam_search to be true")
        return 1
    beams = body.best_of or own
    if body.best_of is None and own == 1:
        raise InvalidRequest(
            f"use_beam_search needs best_of, the number of beams; 1 to {limit} are accepted",
            field="best_of",
        )
    if beams > limit:
        raise InvalidRequest(
            f"best_of is {beams}; at most {limit} beams run at a time, which is the service's "
            "number of slots",
            field="best_of",
        )
    if (body.n or 1) > 1:
        raise InvalidRequest(
            f"n is {body.n}; a beam search gives one text. Send a temperature to sample several",
            field="n",
        )
    _refuse(body, SAMPLES, "is for sampling, which a beam search doesn't")
    return beams


def _refuse(body: SamplingBody, fields: Mapping[str, Sequence[object]], why: str) -> None:
    for name, neutral in fields.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise InvalidRequest(f"{name} {json.dumps(value)} {why}", field=name)


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _logit_bias(bias: dict[str, float], vocab_size: int) -> tuple[tuple[int, float], ...]:
    found: dict[int, float] = {}
    for key, value in bias.items():
        # int() takes signs, spaces, underscores and other scripts' digits too.
        is_number = key.isascii() and key.isdecimal() and len(key) <= len(str(vocab_size))
        if not is_number or int(key) >= vocab_size:
            raise InvalidRequest(
                f"logit_bias: {key[:60]!r} is not accepted; keys are token ids, "
                f"0 to {vocab_size - 1}",
                field="logit_bias",
            )
        found[int(key)] = value
    return tuple(found.items())
