"""LlamaIndex: its classes for text-embeddings-inference and for servers like OpenAI's."""

import pytest

from tests.conformance.rows import CANT, covers
from tests.conformance.service import QUESTION, TEXTS, Service

core = pytest.importorskip("llama_index.core")

EMBEDDINGS = "llama-index-embeddings-text-embeddings-inference"
RERANK = "llama-index-postprocessor-tei-rerank"
OPENAI_EMBEDDINGS = "llama-index-embeddings-openai-like"
LLM = "llama-index-llms-openai-like"


@covers(EMBEDDINGS, "TextEmbeddingsInference.get_text_embedding_batch, aget_query_embedding")
async def test_embeddings_are_the_services(service: Service) -> None:
    tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    # A model that it knows no instruction of, which it would put before the text.
    model = tei.TextEmbeddingsInference(
        model_name="minilm", base_url=service.url, auth_token=service.key
    )
    expected = service.vectors(TEXTS)
    for found, vector in zip(model.get_text_embedding_batch(TEXTS), expected, strict=True):
        assert found == pytest.approx(vector, abs=1e-6)
    assert await model.aget_query_embedding(TEXTS[0]) == pytest.approx(expected[0], abs=1e-6)


@covers(
    RERANK,
    "TextEmbeddingInference.postprocess_nodes",
    why="its auth_token is the whole header, 'Bearer …'",
)
def test_nodes_are_ranked(service: Service) -> None:
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    ranker = tei.TextEmbeddingInference(
        base_url=service.url, auth_token=f"Bearer {service.key}", top_n=1
    )
    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.0) for text in TEXTS]
    (found,) = ranker.postprocess_nodes(nodes, query_str=QUESTION)
    best = service.post("/rerank", {"query": QUESTION, "texts": TEXTS})[0]
    assert found.node.get_content() == TEXTS[best["index"]]
    assert found.score == pytest.approx(best["score"], abs=1e-5)


@covers(OPENAI_EMBEDDINGS, "OpenAILikeEmbedding.get_text_embedding_batch")
def test_embeddings_of_servers_like_openais(service: Service) -> None:
    like = pytest.importorskip("llama_index.embeddings.openai_like")
    model = like.OpenAILikeEmbedding(
        model_name="minilm", api_base=service.openai_url, api_key=service.key
    )
    expected = service.vectors(TEXTS)
    for found, vector in zip(model.get_text_embedding_batch(TEXTS), expected, strict=True):
        assert found == pytest.approx(vector, abs=1e-6)


@covers(LLM, "OpenAILike.complete, .stream_complete, .chat, .stream_chat")
def test_texts_are_the_services(service: Service) -> None:
    like = pytest.importorskip("llama_index.llms.openai_like")
    asked = {"api_base": service.openai_url, "api_key": service.key, "max_tokens": 12}
    model = like.OpenAILike(model="smollm2", temperature=0, **asked)
    expected = service.completion("Once upon", 12)
    assert model.complete("Once upon").text == expected
    assert list(model.stream_complete("Once upon"))[-1].text == expected

    chat = like.OpenAILike(model="smollm2", temperature=0, is_chat_model=True, **asked)
    messages = [core.llms.ChatMessage(role="user", content="What does time do?")]
    answer = service.answer("What does time do?", 12)
    assert chat.chat(messages).message.content == answer
    assert list(chat.stream_chat(messages))[-1].message.content == answer


@covers(LLM, "its exceptions (OpenAI's): 401, 404")
def test_errors_are_openais(service: Service) -> None:
    like = pytest.importorskip("llama_index.llms.openai_like")
    openai = pytest.importorskip("openai")
    asked = {"api_base": service.openai_url, "max_retries": 0}
    with pytest.raises(openai.NotFoundError):
        like.OpenAILike(model="nobody", api_key=service.key, **asked).complete("a")
    with pytest.raises(openai.AuthenticationError):
        like.OpenAILike(model="smollm2", api_key="sk-wrong", **asked).complete("a")


@covers(
    EMBEDDINGS,
    "TextEmbeddingsInference, errors",
    outcome=CANT,
    why="it doesn't look at the status of an answer: an error's body is taken for vectors, and "
    "whatever that raises is what is seen",
)
def test_an_error_is_no_error_of_its_own(service: Service) -> None:
    tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    model = tei.TextEmbeddingsInference(
        model_name="minilm", base_url=service.url, auth_token="sk-wrong"
    )
    with pytest.raises(KeyError):
        model.get_query_embedding("a")
