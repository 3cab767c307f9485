"""OpenAI's completions and chat completions, whole or streamed."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.exchange import answered, exchange_of
from service.api.openai_choices import ChatChoice, Choice, CompletionChoice
from service.api.openai_sampling import chat_sampling, completion_sampling, for_choice
from service.api.openai_types import ChatBody, CompletionsBody, SamplingBody
from service.api.responses import json_response
from service.api.streaming import EventStream, Generations, event
from service.api.tools import CallingChoice, Tools, bytes_of_tools, message_of, tools_of
from service.errors import InvalidRequest
from service.items import TextInput
from service.messages import (
    Followed,
    GenerationChunk,
    GenerationModel,
    Sampling,
    TokenIds,
    join,
)
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing
from service.tool_calls import Grammar

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
MOST_PROMPT_SCORES = 2**16


@dataclass(frozen=True, slots=True)
class Job:
    """What one request asks of one model: every continuation, and the answer they become.

    `kind` is the answer's `object`, `head` its fields beside the choices. Each prompt is continued
    `n` times.
    """

    model: GenerationModel
    prompts: Sequence[TokenIds]
    samplings: Sequence[Sampling]
    choices: Sequence[Choice]
    head: dict[str, Any]
    kind: str
    prompt_tokens: int
    n: int = 1


@dataclass(slots=True)
class Usage:
    """Tokens of a request; each prompt counts once, however often it is continued.

    So do the `cached_tokens` of its first continuation: what it didn't have to read anew.
    """

    job: Job
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, choice: int, chunk: GenerationChunk) -> None:
        """Count what a chunk of a choice has."""
        self.completion_tokens += len(chunk.token_ids)
        self.cached_tokens += chunk.cached_tokens if choice % self.job.n == 0 else 0

    def as_json(self) -> dict[str, Any]:
        """OpenAI's usage object."""
        prompt_tokens = self.job.prompt_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True, slots=True)
class OpenAIGeneration:
    """Handlers of the two generation routes. `now` gives the time of day, in seconds."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits
    max_choices: int
    send_timeout_s: float
    now: Callable[[], float]

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`: continuations of each prompt."""
        body = await bodies.read(request, CompletionsBody, self.limits)
        model = self._model(request, body)
        scores_prompt = bool(body.echo) and body.logprobs is not None
        if body.echo and model.card.generation.has_source:
            raise InvalidRequest(
                f"echo: model {model.card.name!r} reads its prompt by an encoder, and what it "
                "writes doesn't go on from there; leave echo out",
                field="echo",
            )
        with exchange_of(request.scope).timed("tokenize"):
            inputs = await answered(
                request, self.tokenizing.inputs(model, body.prompt, field="prompt")
            )
        prompts = inputs.token_ids
        n = self._choices_of_a_prompt(body, len(prompts))
        if scores_prompt:
            require_few_scores(inputs.tokens * n * ((body.logprobs or 0) + 1))
        samplings = [completion_sampling(body, model, len(prompt)) for prompt in prompts]
        schema = await self._schema(request, body, model, samplings[0])
        samplings = [held(sampling, schema) for sampling in samplings]
        prefixes = _texts(body.prompt, prompts, model) if body.echo else [""] * len(prompts)
        job = Job(
            model=model,
            prompts=[prompt for prompt in prompts for _ in range(n)],
            samplings=[for_choice(sampling, i) for sampling in samplings for i in range(n)],
            choices=[
                CompletionChoice(
                    prompt * n + choice,
                    model.tokenizer,
                    wants_logprobs=body.logprobs is not None,
                    # What answers a source begins a text of its own.
                    prompt=() if model.card.generation.has_source else prompts[prompt],
                    prefix=prefix,
                    echoed=prompts[prompt] if scores_prompt else (),
                )
                for prompt, prefix in enumerate(prefixes)
                for choice in range(n)
            ],
            head=self._head(request, "cmpl", body),
            kind="text_completion",
            prompt_tokens=sum(map(len, prompts)),
            n=n,
        )
        return await self._answer(request, job, body, chunk_kind=job.kind)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: answers to a conversation."""
        body = await bodies.read(request, ChatBody, self.limits)
        model = self._model(request, body)
        tools = tools_of(body, model)
        messages = [message_of(item, place) for place, item in enumerate(body.messages)]
        listed = None if tools is None else tools.listed
        with exchange_of(request.scope).timed("tokenize"):
            prompt = await answered(
                request,
                self.tokenizing.conversation(
                    model,
                    messages,
                    field="messages",
                    tools=listed,
                    more_bytes=bytes_of_tools(body, tools),
                ),
            )
        n = self._choices_of_a_prompt(body, 1)
        sampling = chat_sampling(body, model, len(prompt))
        if tools is None:
            schema = await self._schema(request, body, model, sampling)
            sampling = held(sampling, schema)
        else:
            schema = await self._calls(request, body, model, sampling, tools)
            shown = tuple(sorted(tools.special.values()))
            # Required calls are JSON alone; a text that may have calls in it may be stopped.
            stop = () if tools.required else sampling.stop
            sampling = replace(sampling, schema=schema, shown=shown, stop=stop)
        job = Job(
            model=model,
            prompts=[prompt] * n,
            samplings=[for_choice(sampling, i) for i in range(n)],
            choices=[chat_choice(i, model, tools, bool(body.logprobs)) for i in range(n)],
            head=self._head(request, "chatcmpl", body),
            kind="chat.completion",
            prompt_tokens=len(prompt),
            n=n,
        )
        return await self._answer(request, job, body, chunk_kind="chat.completion.chunk")

    def _model(self, request: Request, body: SamplingBody) -> GenerationModel:
        model = self.registry.generation(body.model)
        exchange_of(request.scope).model = model.card.name
        return model

    async def _schema(
        self, request: Request, body: SamplingBody, model: GenerationModel, sampling: Sampling
    ) -> Followed | None:
        """What the text has to follow, if the request says so."""
        wanted = body.response_format
        if wanted is None or wanted.type == "text":
            return None
        require_followable(model, sampling, f"response_format {wanted.type}", "response_format")
        if wanted.type == "json_object":
            definition, field = ANY_OBJECT, "response_format"
        else:
            definition = wanted.json_schema.definition
            field = "response_format.json_schema.schema"
        # The first one of a model also reads the vocabulary: never on the event loop.
        compiling = self.offload.apart(model.schema, definition, field=field)
        return await answered(request, compiling)

    async def _calls(
        self,
        request: Request,
        body: ChatBody,
        model: GenerationModel,
        sampling: Sampling,
        tools: Tools,
    ) -> Followed | None:
        """What an answer that may call functions has to follow, if anything."""
        if body.response_format is not None and body.response_format.type != "text":
            raise InvalidRequest(
                f"response_format {body.response_format.type} is not supported with tools: a call "
                "has the form of its function; send one of them",
                field="response_format",
            )
        grammar = tools.grammar()
        if grammar is None:
            return None
        require_followable(model, sampling, "tools whose calls are held to a form", "tools")
        return await answered(request, self.offload.apart(followed_calls, model, tools, grammar))

    def _choices_of_a_prompt(self, body: SamplingBody, prompts: int) -> int:
        n = body.n or 1
        if prompts * n > self.max_choices:
            raise InvalidRequest(
                f"{prompts} prompts with n {n} are {prompts * n} choices; "
                f"at most {self.max_choices} are accepted in one request",
                field="n" if prompts == 1 else "prompt",
            )
        return n

    def _head(self, request: Request, prefix: str, body: SamplingBody) -> dict[str, Any]:
        request_id = exchange_of(request.scope).request_id
        return {"id": f"{prefix}-{request_id}", "created": int(self.now()), "model": body.model}

    async def _answer(
        self, request: Request, job: Job, body: SamplingBody, *, chunk_kind: str
    ) -> Response:
        exchange = exchange_of(request.scope)
        exchange.prompt_tokens = job.prompt_tokens
        generations = Generations(exchange)
        terms = exchange.terms(body.priority)
        try:
            for prompt, sampling in zip(job.prompts, job.samplings, strict=True):
                generations.start(job.model, prompt, sampling, terms)
        except BaseException:
            await generations.aclose()
            raise
        if body.stream:
            options = body.stream_options
            with_usage = options is not None and bool(options.include_usage)
            return EventStream(
                generations,
                stream_events(generations, job, chunk_kind, with_usage=with_usage),
                send_timeout_s=self.send_timeout_s,
            )
        async with generations:
            return await answered(request, whole_answer(generations, job))


def require_followable(model: GenerationModel, sampling: Sampling, wanted: str, field: str) -> None:
    """Raises where what is `wanted` holds a text to a form that nothing can keep it to."""
    own = model.card.generation
    if own.forced_first is not None or own.forced_last is not None:
        raise InvalidRequest(
            f"{wanted}: model {model.card.name!r} begins or ends every text with a token of its "
            "own, which no schema has; leave it out",
            field=field,
        )
    against = {
        "ignore_eos": sampling.ignore_eos,
        "min_tokens": sampling.min_tokens > 0,
        "use_beam_search": sampling.beams > 1,
    }
    for name in (name for name, is_asked in against.items() if is_asked):
        raise InvalidRequest(
            f"{name} is not supported with {wanted}: JSON is chosen token by token, and ends where "
            "it is complete",
            field=name,
        )


def held(sampling: Sampling, schema: Followed | None) -> Sampling:
    """The same, held to a schema if there is one.

    Stop strings don't cut what is JSON alone: clients that send the same ones with each request
    would get half of it.
    """
    return sampling if schema is None else replace(sampling, schema=schema, stop=())


def followed_calls(model: GenerationModel, tools: Tools, grammar: Grammar) -> Followed:
    """The grammar of calls, compiled. Raises `InvalidRequest` that names the function at fault."""
    try:
        return model.grammar(str(grammar), field="tools")
    except InvalidRequest:
        for place, name in enumerate(tools.functions):
            if name in grammar.functions:
                alone = str(tools.alone(name))
                model.grammar(alone, field=f"tools[{place}].function.parameters")
        raise


def chat_choice(
    index: int, model: GenerationModel, tools: Tools | None, wants_logprobs: bool
) -> ChatChoice:
    """A choice of a chat, which may call functions if there are any."""
    if tools is None:
        return ChatChoice(index, model.tokenizer, wants_logprobs=wants_logprobs)
    return CallingChoice(index, model.tokenizer, tools, wants_logprobs=wants_logprobs)


def require_few_scores(count: int) -> None:
    """Raises unless an answer may have so many log probabilities of a prompt's tokens."""
    if count > MOST_PROMPT_SCORES:
        raise InvalidRequest(
            f"echo with logprobs: the prompts' tokens, times n, times the tokens listed for each, "
            f"are {count} log probabilities; at most {MOST_PROMPT_SCORES} are given in one answer",
            field="logprobs",
        )


async def whole_answer(generations: Generations, job: Job) -> Response:
    """The answer in one piece, when every generation has ended."""
    chunks: list[list[GenerationChunk]] = [[] for _ in job.choices]
    async with aclosing(generations.chunks()) as arriving:
        async for index, chunk in arriving:
            chunks[index].append(chunk)
    wholes = [join(of_choice) for of_choice in chunks]
    usage = Usage(job)
    for choice, whole in enumerate(wholes):
        usage.add(choice, whole)
    choices = [choice.whole(whole) for choice, whole in zip(job.choices, wholes, strict=True)]
    return json_response(
        {**job.head, "object": job.kind, "choices": choices, "usage": usage.as_json()}
    )


async def stream_events(
    generations: Generations, job: Job, kind: str, *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The events of a stream but for its end. With usage, each has a null and a last one counts."""
    usage = Usage(job)
    head = {**job.head, "object": kind}
    tail: dict[str, Any] = {"usage": None} if with_usage else {}
    async with aclosing(generations.chunks()) as arriving:
        async for index, chunk in arriving:
            usage.add(index, chunk)
            for choice in job.choices[index].deltas(chunk):
                yield event({**head, "choices": [choice], **tail})
    if with_usage:
        yield event({**head, "choices": [], "usage": usage.as_json()})


def _texts(value: TextInput, prompts: Sequence[TokenIds], model: GenerationModel) -> list[str]:
    if isinstance(value, str):
        return [value]
    texts = [item for item in value if isinstance(item, str)]
    return texts or [model.tokenizer.decode(prompt) for prompt in prompts]
