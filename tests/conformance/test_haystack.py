"""Haystack: its classes for text-embeddings-inference and for OpenAI's API."""

import pytest

from tests.conformance.rows import covers
from tests.conformance.service import QUESTION, TEXTS, Service

haystack = pytest.importorskip("haystack")
utils = pytest.importorskip("haystack.utils")

TEI = "huggingface-api-haystack"
CORE = "haystack-ai"


@covers(TEI, "HuggingFaceAPITextEmbedder, HuggingFaceAPIDocumentEmbedder")
def test_embeddings_are_the_services(service: Service) -> None:
    embedders = pytest.importorskip("haystack_integrations.components.embedders.huggingface_api")
    about = {
        "api_type": "text_embeddings_inference",
        "api_params": {"url": service.url},
        "token": utils.Secret.from_token(service.key),
        "normalize": True,
    }
    text = embedders.HuggingFaceAPITextEmbedder(**about)
    documents = embedders.HuggingFaceAPIDocumentEmbedder(**about, progress_bar=False)
    for embedder in (text, documents):
        embedder.warm_up()
    expected = service.vectors(TEXTS)
    assert text.run(TEXTS[0])["embedding"] == pytest.approx(expected[0], abs=1e-6)
    given = [haystack.Document(content=content) for content in TEXTS]
    for document, vector in zip(documents.run(given)["documents"], expected, strict=True):
        assert document.embedding == pytest.approx(vector, abs=1e-6)


@covers(TEI, "HuggingFaceTEIRanker, run and run_async, truncation_direction")
async def test_documents_are_ranked(service: Service) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    ranker = rankers.HuggingFaceTEIRanker(
        url=service.url, token=utils.Secret.from_token(service.key), top_k=1
    )
    given = [haystack.Document(content=content) for content in TEXTS]
    best = service.post("/rerank", {"query": QUESTION, "texts": TEXTS})[0]
    left = rankers.TruncationDirection.LEFT
    for found in (
        ranker.run(QUESTION, given),
        ranker.run(QUESTION, given, truncation_direction=left),
        await ranker.run_async(QUESTION, given),
    ):
        (document,) = found["documents"]
        assert document.content == TEXTS[best["index"]]
        assert document.score == pytest.approx(best["score"], abs=1e-5)


@covers(TEI, "errors: RuntimeError with the service's words")
def test_errors_are_told(service: Service) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    given = [haystack.Document(content=content) for content in TEXTS]
    wrong = rankers.HuggingFaceTEIRanker(
        url=service.url, token=utils.Secret.from_token("sk-wrong"), max_retries=1
    )
    with pytest.raises(RuntimeError, match="the API key is not known"):
        wrong.run(QUESTION, given)
    ranker = rankers.HuggingFaceTEIRanker(
        url=service.url, token=utils.Secret.from_token(service.key), max_retries=1
    )
    with pytest.raises(RuntimeError, match="query"):
        ranker.run("", given)


@covers(CORE, "OpenAITextEmbedder, OpenAIDocumentEmbedder")
def test_embeddings_of_openais_api(service: Service) -> None:
    embedders = pytest.importorskip("haystack.components.embedders")
    about = {
        "model": "minilm",
        "api_base_url": service.openai_url,
        "api_key": utils.Secret.from_token(service.key),
    }
    expected = service.vectors(TEXTS)
    text = embedders.OpenAITextEmbedder(**about)
    documents = embedders.OpenAIDocumentEmbedder(**about, progress_bar=False)
    for embedder in (text, documents):
        embedder.warm_up()
    assert text.run(TEXTS[0])["embedding"] == pytest.approx(expected[0], abs=1e-6)
    given = [haystack.Document(content=content) for content in TEXTS]
    for document, vector in zip(documents.run(given)["documents"], expected, strict=True):
        assert document.embedding == pytest.approx(vector, abs=1e-6)


@covers(CORE, "OpenAIChatGenerator, whole and streamed")
def test_answers_are_the_services(service: Service) -> None:
    generators = pytest.importorskip("haystack.components.generators.chat")
    dataclasses = pytest.importorskip("haystack.dataclasses")
    generator = generators.OpenAIChatGenerator(
        model="smollm2",
        api_base_url=service.openai_url,
        api_key=utils.Secret.from_token(service.key),
        generation_kwargs={"temperature": 0, "max_tokens": 12},
    )
    generator.warm_up()
    messages = [dataclasses.ChatMessage.from_user("What does time do?")]
    expected = service.answer("What does time do?", 12)
    assert generator.run(messages)["replies"][0].text == expected
    pieces: list[str] = []
    told = generator.run(messages, streaming_callback=lambda chunk: pieces.append(chunk.content))
    assert "".join(pieces) == told["replies"][0].text == expected
