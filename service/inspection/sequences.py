"""The texts of an inquiry as the rows that the graph reads, each token with its text and place."""

from collections.abc import Sequence
from dataclasses import dataclass

from export.artifact import Kind, Manifest
from model_core.tokenization import Span, TokenizationError, Tokenizer
from service.errors import InvalidRequest, TooManyTokens
from service.inspection.inquiry import Inquiry
from service.items import byte_count
from service.messages import ModelCard, Task


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Tokens that are read as one, and which of an inquiry's texts each is of (None: of neither).

    `types` are the token types, 0 or 1, where the model tells a pair's texts apart.
    """

    spans: tuple[Span, ...]
    texts: tuple[int | None, ...]
    types: tuple[int, ...]

    @property
    def token_ids(self) -> list[int]:
        """What the graph reads."""
        return [span.token_id for span in self.spans]


@dataclass(frozen=True, slots=True)
class Sequences:
    """What is read for an inquiry: `sources` each alone, and the `target` of the only one, if the
    model has two stacks. `read` are the texts as they were read, any prompt of the model's
    included, in which tokens have their places.
    """

    sources: tuple[TokenRow, ...]
    target: TokenRow | None
    read: tuple[str, ...]

    @property
    def all(self) -> tuple[TokenRow, ...]:
        """In the order of the answer."""
        return self.sources if self.target is None else (*self.sources, self.target)


@dataclass(frozen=True, slots=True)
class TextLimits:
    """How long texts may be: in tokens, and bytes for each, unread beyond."""

    max_tokens: int
    max_bytes_per_token: int


def sequences_of(
    inquiry: Inquiry,
    card: ModelCard,
    served: Manifest,
    tokenizer: Tokenizer,
    limits: TextLimits,
) -> Sequences:
    """How the model reads one text or two.

    An embedding model reads each alone; a classifier reads a pair in one sequence; a decoder the
    second as the continuation of the first; an encoder-decoder the second as the target. Tokens
    of a `continuation` come after that. Raises `InvalidRequest`, `TooManyTokens`.
    """
    text, second = inquiry.text, inquiry.second
    longest = min(limits.max_tokens, card.max_input_tokens)
    for field, value in (("text", text), ("second", second)):
        if value is not None:
            require_text(value, field, longest * limits.max_bytes_per_token)
    try:
        found = tokenized(text, second, card, served, tokenizer)
    except TokenizationError as error:
        raise InvalidRequest(f"text: {error}", field="text") from error
    if inquiry.continuation:
        found = continued(found, inquiry.continuation, served, tokenizer)
    for place, sequence in enumerate(found.all):
        is_target = found.target is not None and place == len(found.sources)
        most = min(limits.max_tokens, card.max_tokens) if is_target else longest
        field = "second" if place else "text"
        if inquiry.continuation and place == len(found.all) - 1:
            field = "continuation"
        if not sequence.spans:
            raise InvalidRequest(f"{field} is empty; it needs a token at least", field=field)
        if len(sequence.spans) > most:
            raise TooManyTokens(
                f"{field} has {len(sequence.spans)} tokens; at most {most} are looked into",
                field=field,
            )
    return found


def require_text(text: str, field: str, most_bytes: int) -> None:
    """Raises for a text that is empty, or so long that it isn't even tokenized."""
    if not text:
        raise InvalidRequest(f"{field} is empty; it needs a character", field=field)
    size = byte_count(text)
    if size > most_bytes:
        raise TooManyTokens(
            f"{field} is {size} bytes; a text of more than {most_bytes} is not looked into",
            field=field,
        )


def tokenized(
    text: str, second: str | None, card: ModelCard, served: Manifest, tokenizer: Tokenizer
) -> Sequences:
    """The same, whatever its length."""
    if served.kind is Kind.ENCODER_DECODER:
        start = [Span(number, tokenizer.token_text(number), True, None, None)
                 for number in starting(served)]  # fmt: skip
        answer = [] if second is None else tokenizer.target_spans(second)
        for span in answer:
            if span.token_id >= served.vocab_size:
                raise InvalidRequest(
                    f"second: {span.text!r} is not in the model's vocabulary of answers",
                    field="second",
                )
        texts = [None] * len(start) + [1] * len(answer)
        target = TokenRow((*start, *answer), tuple(texts), (0,) * len(texts))
        read = (text,) if second is None else (text, second)
        return Sequences((alone(tokenizer.spans(text), 0),), target, read)
    if second is None:
        whole = card.prompt + text
        return Sequences((alone(tokenizer.spans(whole), 0),), None, (whole,))
    if card.task is Task.EMBED:
        read = (card.prompt + text, card.prompt + second)
        rows = tuple(alone(tokenizer.spans(one), place) for place, one in enumerate(read))
        return Sequences(rows, None, read)
    if card.task is Task.GENERATE:
        first, more = tokenizer.spans(text), tokenizer.spans(second, special_tokens=False)
        one = alone(first, 0)
        texts = (*one.texts, *(1 for _ in more))
        return Sequences((TokenRow((*first, *more), texts, (0,) * len(texts)),), None,
                         (text, second))  # fmt: skip
    spans = tokenizer.pair_spans(text, second)
    second_at = tokenizer.encode_pair(text, second).second_at
    types = tuple(int(place >= second_at) for place in range(len(spans)))
    texts = tuple(
        None if span.start is None else kind for span, kind in zip(spans, types, strict=True)
    )
    return Sequences((TokenRow(tuple(spans), texts, types),), None, (text, second))


def continued(
    read: Sequences, token_ids: Sequence[int], served: Manifest, tokenizer: Tokenizer
) -> Sequences:
    """What is read, with tokens after it that a generation wrote; their text belongs to the second.

    Raises `InvalidRequest` for a number that is no token.
    """
    for place, number in enumerate(token_ids):
        if not 0 <= number < served.vocab_size:
            field = f"continuation[{place}]"
            raise InvalidRequest(
                f"{field}: {number} is not accepted; the model has tokens 0 to "
                f"{served.vocab_size - 1}",
                field=field,
            )
    row = read.target or read.sources[0]
    first, *more = read.read
    written = "".join(more)
    stream = tokenizer.stream(after=[span.token_id for span in row.spans if not span.special])
    spans, texts = list(row.spans), list(row.texts)
    for number in token_ids:
        text = stream.push(number)
        if tokenizer.is_special(number):
            spans.append(Span(number, tokenizer.token_text(number), True, None, None))
            texts.append(None)
        else:
            start, written = len(written), written + text
            spans.append(Span(number, text, False, start, len(written)))
            texts.append(1)
    longer = TokenRow(tuple(spans), tuple(texts), (*row.types, *(0 for _ in token_ids)))
    texts_read = (first, written)
    if read.target is None:
        return Sequences((longer,), None, texts_read)
    return Sequences(read.sources, longer, texts_read)


def starting(served: Manifest) -> Sequence[int]:
    """What a target begins with: its start, and the token that has to come first, if any."""
    own = served.generation
    return own.decoder_start if own.forced_first is None else (*own.decoder_start, own.forced_first)


def alone(spans: Sequence[Span], text: int) -> TokenRow:
    """One text; what frames it is of none."""
    texts = tuple(None if span.start is None else text for span in spans)
    return TokenRow(tuple(spans), texts, (0,) * len(spans))
