"""Full text search through a client: ranking is that of BM25 worked out here, by another hand."""

from __future__ import annotations

import math
import random
import re
from collections import Counter

import pytest
from conftest import eventually
from promise.canary import Canaries
from pymilvus import DataType, Function, FunctionType, MilvusException

WORDS = [f"word{number}" for number in range(400)]


def documents(count: int, seed: int) -> list[str]:
    """Texts of a few to many words, low numbers far more often, with punctuation and capitals."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        words = [WORDS[int(draw.random() ** 3 * len(WORDS))] for _ in range(draw.randint(1, 60))]
        made.append(", ".join(words).capitalize() + ".")
    return made


def terms_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def bm25(texts: dict[int, str], query: str, k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    """The score of every text that has a term of the query."""
    counted = {key: Counter(terms_of(text)) for key, text in texts.items()}
    average = sum(sum(counts.values()) for counts in counted.values()) / len(counted)
    scores: dict[int, float] = {}
    for term, times in Counter(terms_of(query)).items():
        having = sum(term in counts for counts in counted.values())
        rarity = math.log(1 + (len(counted) - having + 0.5) / (having + 0.5))
        for key, counts in counted.items():
            if term in counts:
                length = sum(counts.values()) / average
                part = counts[term] * (k1 + 1) / (counts[term] + k1 * (1 - b + b * length))
                scores[key] = scores.get(key, 0) + times * rarity * part
    return scores


def ranked_right(hits, scores: dict[int, float], limit: int) -> None:
    """Every hit has its score, and no better one is missing."""
    found = [(hit["id"], hit["distance"]) for hit in hits]
    best = sorted(scores.values(), reverse=True)[:limit]
    assert [score for _, score in found] == pytest.approx(best, rel=1e-4)
    for key, score in found:
        assert score == pytest.approx(scores[key], rel=1e-4)


def text_schema(client, analyzer: dict | None = None, **text):
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    options = {"enable_analyzer": True, **({"analyzer_params": analyzer} if analyzer else {}), **text}
    schema.add_field("text", DataType.VARCHAR, max_length=4_000, **options)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="text_bm25",
            function_type=FunctionType.BM25,
            input_field_names=["text"],
            output_field_names=["sparse"],
        )
    )
    return schema


def text_collection(client, name: str, analyzer: dict | None = None, **params) -> None:
    index = client.prepare_index_params()
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=params)
    schema = text_schema(client, analyzer)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def test_ranking_is_bm25_s_before_and_after_a_restart(own_saker):
    client = own_saker.client()
    texts = dict(enumerate(documents(6_000, 11)))
    text_collection(client, "books", bm25_k1=1.5, bm25_b=0.6)
    rows = [{"id": key, "text": text} for key, text in texts.items()]
    client.insert("books", rows[:5_000])
    client.flush("books")
    client.insert("books", rows[5_000:])
    queries = ["word3 word120", "Word399", "word0 word1 word2, word3", "word7 word7 word200", "nothing at all"]

    def check(client) -> None:
        found = client.search("books", queries, anns_field="sparse", limit=20, output_fields=["text"])
        for hits, query in zip(found, queries):
            ranked_right(hits, bm25(texts, query, 1.5, 0.6), 20)
            assert all(hit["entity"]["text"] == texts[hit["id"]] for hit in hits)
        scores = {key: score for key, score in bm25(texts, queries[0], 1.5, 0.6).items() if key % 2}
        ranked_right(client.search("books", queries[:1], anns_field="sparse", filter="id % 2 == 1", limit=20)[0], scores, 20)

    check(client)
    eventually(lambda: client.describe_index("books", "sparse")["pending_index_rows"] == 0)
    check(client)
    client.close()
    assert own_saker.stop() == 0
    own_saker.start()
    client = own_saker.client()
    eventually(lambda: str(client.get_load_state("books")["state"]) == "Loaded")
    check(client)
    # Both parts, replaced and added rows: numbers are always those of what is there.
    client.upsert("books", [{"id": 4, "text": "word399 alone"}])
    hits = client.search("books", ["word399"], anns_field="sparse", limit=1)[0]
    assert hits[0]["id"] == 4
    client.close()


def test_functions_are_shown_and_outputs_are_not(client, name):
    text_collection(client, name, {"type": "english"})
    shown = client.describe_collection(name)
    assert [(f["name"], f["input_field_names"], f["output_field_names"]) for f in shown["functions"]] == [
        ("text_bm25", ["text"], ["sparse"])
    ]
    fields = {field["name"]: field for field in shown["fields"]}
    assert fields["sparse"].get("is_function_output")
    assert fields["text"]["params"]["enable_analyzer"] in (True, "true", "True")
    client.insert(name, [{"id": 1, "text": "Running runners"}])
    assert [hit["id"] for hit in client.search(name, ["run"], anns_field="sparse", limit=3)[0]] == [1]
    assert set(client.query(name, filter="id == 1", output_fields=["*"])[0]) == {"id", "text"}
    with pytest.raises(MilvusException, match="not allowed to retrieve raw data of field sparse"):
        client.query(name, filter="id == 1", output_fields=["sparse"])
    with pytest.raises(MilvusException, match="please provide varchar/text for BM25 Function based search"):
        client.search(name, [{1: 1.0}], anns_field="sparse", limit=3)


def test_mistakes_in_schemas_are_told(client, name):
    def refused(change, said: str) -> None:
        schema = text_schema(client)
        change(schema)
        with pytest.raises(Exception, match=said):
            client.create_collection(name, schema=schema)

    refused(lambda schema: schema.fields[1].params.pop("enable_analyzer"), "must set enable_analyzer to true")
    refused(lambda schema: schema.fields[1].params.update(analyzer_params={"type": "klingon"}), "klingon")
    refused(lambda schema: schema.fields[1].params.update(analyzer_params={"tokenizer": "jieba"}), "jieba is not supported")

    def twice(schema) -> None:
        schema.add_function(Function("other", FunctionType.BM25, ["text"], ["sparse"]))

    refused(twice, "[Dd]uplicate")


def test_analyzers_can_be_tried_out(client, name):
    text = "The Falcons' Straße, 3 times!"
    assert client.run_analyzer(text, {"type": "standard"}).tokens == ["the", "falcons", "straße", "3", "times"]
    assert client.run_analyzer(text, {"type": "english"}).tokens == ["falcon", "straße", "3", "time"]
    chain = {"tokenizer": "whitespace", "filter": ["lowercase", "asciifolding", {"type": "length", "max": 8}]}
    assert client.run_analyzer([text, ""], chain)[0].tokens == ["the", "falcons'", "strasse,", "3", "times!"]
    detailed = client.run_analyzer("a falcon", {"type": "standard"}, with_detail=True, with_hash=True).tokens
    assert [(t["token"], t["start_offset"], t["end_offset"], t["position"]) for t in detailed] == [
        ("a", 0, 1, 0),
        ("falcon", 2, 8, 1),
    ]
    text_collection(client, name, {"type": "english"})
    assert client.run_analyzer("running", collection_name=name, field_name="text").tokens == ["run"]


def test_no_word_is_readable_on_disk(own_saker):
    client = own_saker.client()
    key = own_saker.kms().create_key()["KeyMetadata"]["Arn"]
    client.create_database("sealed", properties={"cipher.enabled": "true", "cipher.key": key})
    client.use_database("sealed")
    canaries = Canaries()
    words = [canaries.word("a word of a text") for _ in range(40)]
    text_collection(client, "books")
    client.insert("books", [{"id": row, "text": f"{words[row % 40]} filler {row}"} for row in range(5_000)])
    client.flush("books")
    client.insert("books", [{"id": 5_000, "text": words[3]}])
    eventually(lambda: client.describe_index("books", "sparse")["pending_index_rows"] == 0)
    searched = canaries.word("a word of a query")
    assert len(client.search("books", [f"{words[3]} {searched}"], anns_field="sparse", limit=10)[0]) == 10
    assert canaries.found(own_saker.directory) == []
    client.close()
    assert own_saker.stop() == 0
    assert canaries.found(own_saker.directory) == []
