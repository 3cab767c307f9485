"""OpenAI's completions and chat completions, whole or streamed."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.exchange import exchange_of, unless_disconnected
from service.api.openai_choices import ChatChoice, Choice, CompletionChoice
from service.api.openai_sampling import chat_sampling, completion_sampling, for_choice
from service.api.openai_types import ChatBody, CompletionsBody, SamplingBody
from service.api.responses import json_response
from service.api.streaming import EventStream, Generations, event
from service.errors import InvalidRequest
from service.messages import GenerationChunk, GenerationModel, Sampling, TokenIds, join
from service.registry import Registry
from service.tokenizing import TextInput, Tokenizing


@dataclass(frozen=True, slots=True)
class Job:
    """What one request asks of one model: every continuation, and the answer they become.

    `kind` is the answer's `object`, `head` its fields beside the choices.
    """

    model: GenerationModel
    prompts: Sequence[TokenIds]
    samplings: Sequence[Sampling]
    choices: Sequence[Choice]
    head: dict[str, Any]
    kind: str
    prompt_tokens: int


@dataclass(slots=True)
class Usage:
    """Tokens of a request; each prompt counts once, however often it is continued."""

    prompt_tokens: int
    completion_tokens: int = 0

    def as_json(self) -> dict[str, int]:
        """OpenAI's usage object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class OpenAIGeneration:
    """Handlers of the two generation routes. `now` gives the time of day, in seconds."""

    registry: Registry
    tokenizing: Tokenizing
    limits: bodies.BodyLimits
    max_choices: int
    send_timeout_s: float
    now: Callable[[], float]

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`: continuations of each prompt."""
        body = await bodies.read(request, CompletionsBody, self.limits)
        if body.echo and body.logprobs is not None:
            raise InvalidRequest("echo with logprobs is not supported; send one", field="echo")
        model = self._model(request, body)
        prompts = await unless_disconnected(
            request.receive, self.tokenizing.inputs(model, body.prompt, field="prompt")
        )
        n = self._choices_of_a_prompt(body, len(prompts))
        samplings = [completion_sampling(body, model, len(prompt)) for prompt in prompts]
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
                    prefix=prefix,
                )
                for prompt, prefix in enumerate(prefixes)
                for choice in range(n)
            ],
            head=self._head(request, "cmpl", body),
            kind="text_completion",
            prompt_tokens=sum(map(len, prompts)),
        )
        return await self._answer(request, job, body, chunk_kind=job.kind)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: answers to a conversation."""
        body = await bodies.read(request, ChatBody, self.limits)
        model = self._model(request, body)
        messages = [
            # OpenAI's newer name of the same role; the templates of open models know the older.
            {"role": "system" if item.role == "developer" else item.role, "content": item.text}
            for item in body.messages
        ]
        prompt = await unless_disconnected(
            request.receive, self.tokenizing.conversation(model, messages, field="messages")
        )
        n = self._choices_of_a_prompt(body, 1)
        sampling = chat_sampling(body, model, len(prompt))
        job = Job(
            model=model,
            prompts=[prompt] * n,
            samplings=[for_choice(sampling, i) for i in range(n)],
            choices=[
                ChatChoice(i, model.tokenizer, wants_logprobs=bool(body.logprobs)) for i in range(n)
            ],
            head=self._head(request, "chatcmpl", body),
            kind="chat.completion",
            prompt_tokens=len(prompt),
        )
        return await self._answer(request, job, body, chunk_kind="chat.completion.chunk")

    def _model(self, request: Request, body: SamplingBody) -> GenerationModel:
        model = self.registry.generation(body.model)
        exchange_of(request.scope).model = model.card.name
        return model

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
        generations = Generations()
        try:
            for prompt, sampling in zip(job.prompts, job.samplings, strict=True):
                generations.start(job.model, prompt, sampling)
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
            return await unless_disconnected(request.receive, whole_answer(generations, job))


async def whole_answer(generations: Generations, job: Job) -> Response:
    """The answer in one piece, when every generation has ended."""
    chunks: list[list[GenerationChunk]] = [[] for _ in job.choices]
    async with aclosing(generations.chunks()) as arriving:
        async for index, chunk in arriving:
            chunks[index].append(chunk)
    wholes = [join(of_choice) for of_choice in chunks]
    usage = Usage(job.prompt_tokens, sum(len(whole.token_ids) for whole in wholes))
    choices = [choice.whole(whole) for choice, whole in zip(job.choices, wholes, strict=True)]
    return json_response(
        {**job.head, "object": job.kind, "choices": choices, "usage": usage.as_json()}
    )


async def stream_events(
    generations: Generations, job: Job, kind: str, *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The events of a stream but for its end. With usage, each has a null and a last one counts."""
    usage = Usage(job.prompt_tokens)
    head = {**job.head, "object": kind}
    tail: dict[str, Any] = {"usage": None} if with_usage else {}
    async with aclosing(generations.chunks()) as arriving:
        async for index, chunk in arriving:
            usage.completion_tokens += len(chunk.token_ids)
            for choice in job.choices[index].deltas(chunk):
                yield event({**head, "choices": [choice], **tail})
    if with_usage:
        yield event({**head, "choices": [], "usage": usage.as_json()})


def _texts(value: TextInput, prompts: Sequence[TokenIds], model: GenerationModel) -> list[str]:
    if isinstance(value, str):
        return [value]
    texts = [item for item in value if isinstance(item, str)]
    return texts or [model.tokenizer.decode(prompt) for prompt in prompts]
