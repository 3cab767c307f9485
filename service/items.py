"""The items of a request: which are texts and which token ids, and what length is accepted."""

from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

from model_core.tokenization import Tokenizer
from service.errors import InvalidRequest, TooManyTokens
from service.messages import Inputs, ServedModel, TokenIds, Truncation

TextInput: TypeAlias = str | list[str] | list[int] | list[list[int]]


def shortened(text: str, bytes_: int, truncation: Truncation) -> str:
    """What is read of a text of which an end may be dropped: at most so many bytes."""
    if byte_count(text) <= bytes_:
        return text
    raw = text.encode()
    kept = raw[:bytes_] if truncation is Truncation.RIGHT else raw[-bytes_:]
    return kept.decode(errors="ignore")  # half a character at the cut


def fitted(
    encoded: Sequence[TokenIds], model: ServedModel, fields: Sequence[str], truncation: Truncation
) -> Inputs:
    """Items no longer than the model takes: cut as `truncation` says, or refused by name."""
    if truncation is Truncation.ERROR:
        for ids, field in zip(encoded, fields, strict=True):
            require_length(ids, model, field=field)
        return Inputs.whole(encoded, fields)
    for ids, field in zip(encoded, fields, strict=True):
        require_some(ids, field=field)
    limit, is_left = model.card.max_input_tokens, truncation is Truncation.LEFT
    cut = [model.tokenizer.cut(ids, limit, left=is_left) for ids in encoded]
    dropped = [len(a) - len(b) for a, b in zip(encoded, cut, strict=True)]
    return Inputs(cut, dropped, names=fields)


def byte_count(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def require_known_ids(ids: Sequence[int], tokenizer: Tokenizer, *, field: str) -> None:
    """Raises `InvalidRequest`, naming the first id that is outside the vocabulary."""
    for position, token_id in enumerate(ids):
        if not 0 <= token_id < tokenizer.vocab_size:
            raise InvalidRequest(
                f"{field}[{position}]: token id {token_id} is outside this model's vocabulary; "
                f"0 to {tokenizer.vocab_size - 1} are accepted",
                field=f"{field}[{position}]",
            )


def require_length(ids: Sequence[int], model: ServedModel, *, field: str) -> None:
    """Raises unless there are 1 to `card.max_input_tokens` ids; the message has both counts."""
    require_some(ids, field=field)
    if len(ids) > model.card.max_input_tokens:
        raise TooManyTokens(
            f"{field} has {len(ids)} tokens; model {model.card.name!r} takes at most "
            f"{model.card.max_input_tokens}",
            field=field,
        )


def require_some(ids: Sequence[int], *, field: str) -> None:
    """Raises unless there is one."""
    if not ids:
        raise InvalidRequest(f"{field} is empty; it needs a token at least", field=field)


def is_texts(value: list[str] | list[int] | list[list[int]]) -> TypeGuard[list[str]]:
    """Whether the items are texts."""
    return bool(value) and isinstance(value[0], str)


def is_ids(value: TextInput) -> TypeGuard[list[int]]:
    """Whether it is one item, of token ids."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)


def lists_of_ids(value: list[str] | list[int] | list[list[int]]) -> list[TokenIds]:
    """The items that are token ids, each as a list."""
    if is_ids(value):
        return [value]
    return [item for item in value if isinstance(item, list)]
