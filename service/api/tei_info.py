"""What `/info` says for clients of text-embeddings-inference: of the model that answers its routes.

Fields and their meaning are those of its router's `Info`.
"""

from service.api.answers.operations import Labelled, TeiInfo, TeiModelType
from service.api.described import PROJECT_VERSION
from service.messages import ModelCard, Task
from service.offload import THREADS
from service.settings import ServiceSettings

DTYPES = {"fp32": "float32", "fp16": "float16"}


def tei_info(card: ModelCard, settings: ServiceSettings) -> TeiInfo:
    """Its fields for `card`. Generators have no `model_type`: that server has none of them."""
    found: TeiInfo = {
        "model_id": card.name,
        "model_sha": None,
        "model_dtype": DTYPES.get(card.precision, card.precision),
        # Ours is a limit of tokens that wait: so many requests fit that are as long as can be.
        "max_concurrent_requests": max(1, settings.max_queue_tokens // card.max_input_tokens),
        "max_input_length": card.max_input_tokens,
        "max_batch_tokens": settings.token_budget,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": False,
        "tokenization_workers": THREADS,
        "version": PROJECT_VERSION,
        "sha": None,
        "docker_label": None,
    }
    kind = model_type(card)
    return found | {"model_type": kind} if kind else found


def model_type(card: ModelCard) -> TeiModelType | None:
    """What text-embeddings-inference calls such a model."""
    if card.task is Task.EMBED:
        return {"embedding": {"pooling": card.pooling}}
    if card.task is Task.CLASSIFY:
        return {"reranker": labels_of(card)} if card.ranks else {"classifier": labels_of(card)}
    return None


def labels_of(card: ModelCard) -> Labelled:
    """Labels by their places, and the other way round."""
    by_place = {str(place): label for place, label in enumerate(card.labels)}
    return {"id2label": by_place, "label2id": {v: int(k) for k, v in by_place.items()}}
