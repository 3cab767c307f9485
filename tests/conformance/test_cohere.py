"""Cohere's clients: reranking, by both versions of its API."""

import pytest

from tests.conformance.rows import CANT, covers
from tests.conformance.service import QUESTION, TEXTS, Service

cohere = pytest.importorskip("cohere")

CLIENT = "cohere"


@covers(CLIENT, "Client.rerank (v1)")
def test_documents_are_ranked_by_the_first_version(service: Service) -> None:
    client = cohere.Client(api_key=service.key, base_url=service.url)
    found = client.rerank(model="minilm", query=QUESTION, documents=TEXTS, return_documents=True)
    expected = service.post("/rerank", {"query": QUESTION, "texts": TEXTS})
    assert [item.index for item in found.results] == [item["index"] for item in expected]
    assert [item.document.text for item in found.results] == [
        TEXTS[item["index"]] for item in expected
    ]
    assert found.meta.api_version.version == "1"


@covers(CLIENT, "ClientV2.rerank (v2), top_n, max_tokens_per_doc")
def test_documents_are_ranked_by_the_second_version(service: Service) -> None:
    client = cohere.ClientV2(api_key=service.key, base_url=service.url)
    found = client.rerank(
        model="minilm", query=QUESTION, documents=TEXTS, top_n=1, max_tokens_per_doc=100
    )
    best = service.post("/rerank", {"query": QUESTION, "texts": TEXTS})[0]
    (item,) = found.results
    assert (item.index, item.relevance_score) == (
        best["index"],
        pytest.approx(best["score"], abs=1e-5),
    )


@covers(CLIENT, "AsyncClientV2.rerank")
async def test_documents_are_ranked_by_the_client_that_waits(service: Service) -> None:
    client = cohere.AsyncClientV2(api_key=service.key, base_url=service.url)
    found = await client.rerank(model="minilm", query=QUESTION, documents=TEXTS)
    assert len(found.results) == 2


@covers(CLIENT, "its exceptions: BadRequestError, UnauthorizedError, NotFoundError")
def test_errors_are_the_clients_own(service: Service) -> None:
    client = cohere.ClientV2(api_key=service.key, base_url=service.url)
    with pytest.raises(cohere.BadRequestError) as bad:
        client.rerank(model="minilm", query="", documents=TEXTS)
    assert bad.value.body["error"]["param"] == "query"
    with pytest.raises(cohere.NotFoundError):
        client.rerank(model="nobody", query=QUESTION, documents=TEXTS)
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="sk-wrong", base_url=service.url).rerank(
            model="minilm", query=QUESTION, documents=TEXTS
        )


@covers(
    CLIENT,
    "embed, chat, classify",
    outcome=CANT,
    why="Cohere's own shapes of these are not served; reranking is what other servers took over",
)
def test_other_routes_are_not_there(service: Service) -> None:
    client = cohere.ClientV2(api_key=service.key, base_url=service.url)
    with pytest.raises(cohere.NotFoundError):
        client.embed(
            model="minilm", texts=TEXTS, input_type="search_document", embedding_types=["float"]
        )
