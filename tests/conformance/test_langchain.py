"""langchain-openai: its embeddings, and its chat and completion models."""

from typing import Any

import pytest

from tests.conformance.rows import CANT, covers
from tests.conformance.service import LONG, TEXTS, Service

langchain = pytest.importorskip("langchain_openai")

CLIENT = "langchain-openai"


@covers(
    CLIENT,
    "OpenAIEmbeddings(check_embedding_ctx_length=False)",
    why="the setting makes it send texts",
)
def test_documents_are_the_services_vectors(service: Service) -> None:
    embeddings = langchain.OpenAIEmbeddings(
        model="minilm",
        base_url=service.openai_url,
        api_key=service.key,
        check_embedding_ctx_length=False,
    )
    expected = service.vectors(TEXTS)
    for found, vector in zip(embeddings.embed_documents(TEXTS), expected, strict=True):
        assert found == pytest.approx(vector, abs=1e-6)
    assert embeddings.embed_query(TEXTS[0]) == pytest.approx(expected[0], abs=1e-6)


@covers(
    CLIENT,
    "OpenAIEmbeddings with its defaults",
    outcome=CANT,
    why="it sends token ids of OpenAI's vocabulary (tiktoken), which name other words here: ids "
    "beyond the model's vocabulary are refused, smaller ones can't be told from right ones. Set "
    "check_embedding_ctx_length=False",
)
def test_ids_of_another_vocabulary_are_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # llama-index ships tiktoken's vocabulary; without it tiktoken fetches it from its makers.
    core = pytest.importorskip("llama_index.core")
    folder = f"{core.__path__[0]}/_static/tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
    embeddings = langchain.OpenAIEmbeddings(
        model="minilm", base_url=service.openai_url, api_key=service.key
    )
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.BadRequestError, match=r"token id \d+"):
        embeddings.embed_documents(["Naïve café 日本語 zwölf Boxkämpfer jagen Viktor"])


@covers(CLIENT, "ChatOpenAI.invoke, .stream, .ainvoke")
async def test_answers_are_the_services(service: Service) -> None:
    chat = chat_of(service)
    expected = service.answer("What does time do?", 12)
    assert chat.invoke("What does time do?").content == expected
    assert "".join(chunk.content for chunk in chat.stream("What does time do?")) == expected
    assert (await chat.ainvoke("What does time do?")).content == expected


@covers(CLIENT, "ChatOpenAI.with_structured_output(a pydantic model)")
def test_an_answer_follows_a_schema(service: Service) -> None:
    import pydantic

    class Animal(pydantic.BaseModel):
        """An animal."""

        legs: int

    structured = chat_of(service).with_structured_output(Animal, method="json_schema")
    assert isinstance(structured.invoke("How many legs has a dog? Answer in JSON."), Animal)


@covers(CLIENT, "OpenAI (completions).invoke, .stream")
def test_completions_are_the_services(service: Service) -> None:
    model = langchain.OpenAI(
        model="smollm2",
        base_url=service.openai_url,
        api_key=service.key,
        max_tokens=8,
        temperature=0,
    )
    expected = service.completion("Once upon", 8)
    assert model.invoke("Once upon") == expected
    assert "".join(model.stream("Once upon")) == expected


@covers(CLIENT, "its exceptions (OpenAI's): 400, 401, 404")
def test_errors_are_openais(service: Service) -> None:
    openai = pytest.importorskip("openai")
    chat = {"base_url": service.openai_url, "max_retries": 0}
    with pytest.raises(openai.NotFoundError):
        langchain.ChatOpenAI(model="nobody", api_key=service.key, **chat).invoke("a")
    with pytest.raises(openai.AuthenticationError):
        langchain.ChatOpenAI(model="smollm2", api_key="sk-wrong", **chat).invoke("a")
    with pytest.raises(openai.BadRequestError):
        langchain.ChatOpenAI(model="smollm2", api_key=service.key, **chat).invoke(LONG * 10)


def chat_of(service: Service) -> Any:
    return langchain.ChatOpenAI(
        model="smollm2",
        base_url=service.openai_url,
        api_key=service.key,
        temperature=0,
        max_tokens=12,
    )
