"""From the sampling fields of OpenAI's bodies to `Sampling`: defaults, and checks over fields."""

from dataclasses import replace

from service.api.openai_types import ChatBody, CompletionsBody, SamplingBody
from service.errors import InvalidRequest, TooManyTokens
from service.messages import GenerationModel, Sampling

COMPLETION_MAX_TOKENS = 16
SEEDS = 2**63


def completion_sampling(body: CompletionsBody, model: GenerationModel, prompt: int) -> Sampling:
    """How a prompt of `prompt` tokens is continued; 16 tokens, or the room left, by default."""
    room = _room(model, prompt, "prompt")
    max_tokens = body.max_tokens
    if max_tokens is None:
        max_tokens = min(COMPLETION_MAX_TOKENS, room)
    return _sampling(body, model, prompt, "max_tokens", max_tokens, body.logprobs)


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


def _room(model: GenerationModel, prompt: int, field: str) -> int:
    room = model.card.max_tokens - prompt
    if room < 1:
        raise TooManyTokens(
            f"{field} has {prompt} tokens; model {model.card.name!r} holds "
            f"{model.card.max_tokens} with the continuation, which needs 1 at least",
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
    if prompt + max_tokens > model.card.max_tokens:
        raise TooManyTokens(
            f"{max_tokens_field} is {max_tokens} and the prompt has {prompt} tokens, "
            f"{prompt + max_tokens} together; model {model.card.name!r} holds "
            f"{model.card.max_tokens}",
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
    return Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
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
    )


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
