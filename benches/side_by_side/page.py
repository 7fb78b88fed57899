"""The page's tables and pictures, from the results of all data sets; it replaces what stands between two comments."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from side_by_side import pictures
from side_by_side.data import COLUMNS, PERMILLES
from side_by_side.results import median

BEGIN, END = "<!-- side-by-side: begin; written by make bench -->", "<!-- side-by-side: end -->"
TARGETS = ("0.95", "0.99")
TITLES = {"minilm": "MiniLM sentence embeddings", "glove": "GloVe word vectors"}


def write(page: Path, results: Path) -> None:
    parts = []
    for name in TITLES:
        path = results / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text()), page.parent / "pictures", name))
    if not parts:
        print("nothing was measured yet")
        return
    text = page.read_text()
    if BEGIN not in text:
        first, _, rest = text.partition("\n## ")
        text = f"{first}\n{BEGIN}\n{END}\n\n## {rest}"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(parts) + f"{END}{after}")
    print(f"wrote {page.name} and its pictures")


def section(results: dict, folder: Path, data: str) -> str:
    folder.mkdir(exist_ok=True)
    engines, about = results["engines"], results["data"]
    machine = results["machine"]
    measured = {name: engine for name, engine in engines.items() if "build" in engine and engine.get("curve")}
    shown = f"{about['rows']:,} x {about['dim']}"
    lines = [
        f"## Side by side: {TITLES[data]}, {shown}",
        f"Data: {about['about']}. {about['queries']:,} queries, cosine, k = 10, exact neighbours by brute force.",
        f"Machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['instructions'])}), {machine['memory_gib']} GiB; {machine['system']}, "
        f"Python {machine['python']}, Rust {machine['rust']}.",
        how(results),
        "",
    ]
    lines += search_table(results, measured, folder, data, shown)
    lines += latency_table(measured, folder, data, shown)
    lines += build_table(engines, about, folder, data, shown)
    lines += filtered_table(measured, folder, data, shown)
    lines += sealing_table(results, folder, data, shown)
    lines += settings_table(engines)
    return "\n".join(lines) + "\n"


def how(results: dict) -> str:
    runs = results["runs"]
    used = {engine["run"] for engine in results["engines"].values() if "run" in engine}
    about = [runs[run] for run in sorted(used) if run in runs]
    rounds = " and ".join(sorted({f"{run.get('rounds')} rounds of up to {run.get('seconds')} s a measurement" for run in about if "rounds" in run}))
    load = max((run.get("load_before", 0.0) for run in about), default=0.0)
    busy = f" Other work ran on the machine meanwhile (load {load:.1f} at the start): read ratios, not absolute figures." if load > 1 else ""
    return (
        "Each engine has a process of its own; all are measured in turns, an engine whose turn it is not is stopped. For each engine the search parameter is swept and "
        f"the fastest setting that reaches the recall is measured: {rounds}, medians. Ratios are within one run.{busy}"
    )


def picture(folder: Path, name: str, svg: str, alt: str) -> str:
    (folder / f"{name}.svg").write_text(svg)
    return f"![{alt}](pictures/{name}.svg)"


def whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def saker_qps(results: dict, engine: dict, target: str, lane: str, who: str = "Saker") -> float | None:
    seen = results["runs"].get(engine["run"], {}).get("saker", {}).get(who, {}).get(target, {}).get(lane)
    return statistics.median(seen) if seen else None


def search_table(results: dict, measured: dict, folder: Path, data: str, shown: str) -> list[str]:
    lines = ["### Search", ""]
    series = {name: [(point["recall"], point["qps"]) for point in engine["curve"]] for name, engine in measured.items()}
    lines += [picture(folder, f"recall-{data}", pictures.curves(f"Recall and speed, {shown}", "searches a second of one thread or client, higher is better", series, "searches a second"), "Recall against searches a second"), ""]
    for target in TARGETS:
        rows: dict[str, tuple] = {}
        for name, engine in measured.items():
            if target not in engine.get("rates", {}):
                continue
            one, two = ("1 client", "2 clients") if name == "Saker" else ("1 thread", "2 threads")
            rows[name] = (engine, median(engine, target, one), median(engine, target, two))
        if not rows:
            continue
        ordered = dict(sorted(rows.items(), key=lambda item: -(item[1][2] or 0)))
        lines += [f"Recall@10 of {target} and more; searches a second. `Saker / it`: Saker's two clients (one query a request, gRPC) over the engine's two threads in process.", ""]
        lines += ["| engine | setting | recall | 1 thread or client | 2 threads or clients | Saker / it | Saker, 100 queries a request / it |", "|---|---|---|---|---|---|---|"]
        for name, (engine, one, two) in ordered.items():
            point = engine["points"][target]
            single, many = saker_qps(results, engine, target, "2 clients"), saker_qps(results, engine, target, "2 clients, 100 queries a request")
            ratios = [f"{saker / two:.2f}" if saker and two and not name.startswith("Saker") else "" for saker in (single, many)]
            shown_name = f"**{name}**" if name.startswith("Saker") else name
            lines.append(f"| {shown_name} | {engine['parameter']} {point['parameter']} | {point['recall']:.4f} | {whole(one)} | {whole(two)} | {ratios[0]} | {ratios[1]} |")
        for lane in ("2 clients, 100 queries a request", "1 pymilvus client"):
            value = median(measured.get("Saker", {}), target, lane)
            if value:
                lines.append(f"| **Saker**, {lane} | | | | {whole(value)} | | |")
        batch = median(measured.get("Saker engine, in process", {}), target, "1 caller, 100 queries a call")
        if batch:
            lines.append(f"| **Saker engine, in process**, 100 queries a call | | | | {whole(batch)} | | |")
        lines.append("")
        chart = {name: [one, two] for name, (_, one, two) in ordered.items()}
        lines += [picture(folder, f"search-{data}-{target.replace('.', '')}", pictures.bars(f"Searches a second at recall@10 >= {target}, {shown}", "one query a request; logarithmic", ["1 thread or client", "2 threads or clients"], chart, ""), f"Searches a second at recall {target}"), ""]
        lines += missing(measured, target)
    return lines


def missing(measured: dict, target: str) -> list[str]:
    below = {name: max(point["recall"] for point in engine["curve"]) for name, engine in measured.items() if target not in engine.get("points", {})}
    named = ", ".join(f"{name} (at most {most:.3f})" for name, most in below.items())
    return [f"No setting of its sweep reaches {target}: {named}.", ""] if below else []


def latency_table(measured: dict, folder: Path, data: str, shown: str) -> list[str]:
    lines = ["### Latency", "", "Milliseconds of one query a call by one caller, at the setting for the recall; Saker over gRPC.", ""]
    names = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms")
    lines += ["| engine | recall | p50 | p90 | p99 | p99.9 |", "|---|---|---|---|---|---|"]
    rows: dict[str, list[tuple[str, float]]] = {}
    for target in TARGETS:
        found = {name: engine["latency"][target] for name, engine in measured.items() if target in engine.get("latency", {})}
        for name, seen in sorted(found.items(), key=lambda item: item[1].get("p50_ms", 9e9)):
            lines.append(f"| {name} | {target} | " + " | ".join(f"{seen[one]:.3f}" if one in seen else "-" for one in names) + " |")
            if target == TARGETS[0]:
                rows[name] = [(one, seen[one]) for one in names if one in seen]
    chart = pictures.spans(f"Latency at recall@10 >= {TARGETS[0]}, {shown}", "p50, p90, p99, p99.9 from the largest dot to the smallest; one caller", rows, "milliseconds, logarithmic")
    return [*lines, "", picture(folder, f"latency-{data}", chart, "Latency percentiles"), ""]


def build_table(engines: dict, about: dict, folder: Path, data: str, shown: str) -> list[str]:
    rows = about["rows"]
    raw = rows * about["dim"] * 4 / (1 << 20)
    lines = ["### Ingest, index, memory", ""]
    lines += [
        f"Rows a second until all are acknowledged (Saker: sealed and fsynced, searchable at once; two clients in Rust); libraries take rows only into the index. Index: seconds until the "
        f"index has all rows, two threads. Memory: of the server's processes, or what the library's process grew by; the raw vectors are {raw:,.0f} MiB.",
        "",
        "| engine | rows/s acknowledged | ingest, s | index, s | both, s | memory, MiB | / raw vectors | disk, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    totals: dict[str, list[float | None]] = {}
    memories: dict[str, list[float | None]] = {}
    for name, engine in sorted(engines.items(), key=lambda item: sum(item[1].get("build", {}).get(one, 9e9) for one in ("ingest_seconds", "index_seconds"))):
        if "build" not in engine:
            continue
        ingest, index = engine["build"]["ingest_seconds"], engine["build"]["index_seconds"]
        memory = engine.get("memory", {})
        resident, disk = memory.get("resident_bytes"), memory.get("disk_bytes")
        library = ingest < 0.01
        cells = ["-" if library else whole(rows / ingest), "-" if library else f"{ingest:.1f}", f"{index:.1f}", f"{ingest + index:.1f}"]
        cells += [whole(resident / (1 << 20)) if resident else "-", f"{resident / (1 << 20) / raw:.2f}" if resident else "-", whole(disk / (1 << 20)) if disk else "-"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        totals[name] = [None if library else ingest, index]
        memories[name] = [resident / (1 << 20) if resident else None]
    chart = pictures.bars(f"Seconds until all rows are taken and indexed, {shown}", "lower is better; logarithmic", ["ingest", "index"], totals, " s")
    lines += ["", picture(folder, f"build-{data}", chart, "Ingest and index build"), ""]
    chart = pictures.bars(f"Memory with everything loaded, {shown}", f"lower is better; the raw vectors are {raw:,.0f} MiB", ["MiB"], dict(sorted(memories.items(), key=lambda item: item[1][0] or 9e9)), "", log=False)
    return [*lines, picture(folder, f"memory-{data}", chart, "Memory"), ""]


def filtered_table(measured: dict, folder: Path, data: str, shown: str) -> list[str]:
    found = {name: engine["filtered"] for name, engine in measured.items() if engine.get("filtered")}
    if not found:
        return []
    meaning = {"scattered": "rows that pass lie anywhere", "clustered": "rows that pass lie around one place, half of the queries there too"}
    lines = ["### Filtered search", "", "One thread or client, one query a request, at the fastest setting that reaches recall 0.95; else the best recall that the sweep gave, in *italics*.", ""]
    charts: dict[str, dict] = {}
    for column in COLUMNS:
        names = [name for name in found if any(key.startswith(column) for key in found[name])]
        lines += [f"{meaning[column][0].upper()}{meaning[column][1:]}; searches a second (recall):", ""]
        lines += ["| engine | " + " | ".join(f"{permille / 10:g} %" for permille in PERMILLES) + " |", "|---|" + "---|" * len(PERMILLES)]
        for name in sorted(names, key=lambda one: -found[one].get(f"{column}-{PERMILLES[-1]}", {}).get("qps", 0)):
            cells = []
            for permille in PERMILLES:
                point = found[name].get(f"{column}-{permille}")
                if point is None:
                    cells.append("-")
                    continue
                cell = f"{whole(point['qps'])} ({point['recall']:.3f})"
                cells.append(cell if point["recall"] >= 0.95 else f"*{cell}*")
                charts.setdefault(f"{column}: {meaning[column]}".split(",")[0], {}).setdefault(name, []).append((permille / 10, point["qps"], point["recall"] >= 0.95))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        best = []
        for permille in PERMILLES:
            peers = [found[name][key]["qps"] for name in found if not name.startswith("Saker") and (key := f"{column}-{permille}") in found[name] and found[name][key]["recall"] >= 0.95]
            own = found.get("Saker", {}).get(f"{column}-{permille}")
            best.append(f"{own['qps'] / max(peers):.2f}" if peers and own else "-")
        lines += ["| **Saker / best peer that reaches 0.95** | " + " | ".join(best) + " |", ""]
    chart = pictures.panels(f"Filtered search, {shown}", "searches a second of one thread or client at recall@10 >= 0.95; hollow: not reached", charts, "rows that pass", "searches a second")
    return [*lines, picture(folder, f"filtered-{data}", chart, "Filtered search"), ""]


def sealing_table(results: dict, folder: Path, data: str, shown: str) -> list[str]:
    sealing = results.get("sealing")
    lines = []
    service = results["engines"].get("Saker", {}).get("report", {}).get("key_service")
    if sealing:
        lines += ["### Sealed beside a null cipher", "", f"The same sources, built with AES-256-GCM and with a cipher that does nothing, in turns ({sealing['turns']} each), medians.", ""]
        lines += ["| what | sealed | null cipher | sealed / null |", "|---|---|---|---|"]
        chart: dict[str, list[float | None]] = {}
        for what, values in sealing["figures"].items():
            sealed, null = statistics.median(values["sealed"]), statistics.median(values["null"])
            lines.append(f"| {what} | {sealed:,.1f} | {null:,.1f} | {sealed / null:.3f} |")
            chart[what] = [sealed / null]
        drawing = pictures.bars(f"What sealing leaves of the speed, {shown}", "sealed over null cipher; 1 is no cost", ["ratio"], chart, "", log=False)
        lines += ["", picture(folder, f"sealing-{data}", drawing, "Sealed beside a null cipher"), ""]
    if service:
        calls = ", ".join(f"{count} {name}" for name, count in sorted(service["calls"].items())) or "none"
        lines += [
            "### Calls of the key service",
            "",
            f"In the {service['seconds']:,.0f} s of all of the above, from the first row on: {calls}; probes alone are about {service['probes_expected']:,.0f} "
            "(one Decrypt of each of the two root keys every 5 s).",
            "",
        ]
    return lines


def settings_table(engines: dict) -> list[str]:
    lines = ["### Versions and settings", "", "| engine | version | settings |", "|---|---|---|"]
    for name, engine in engines.items():
        if "settings" in engine:
            lines.append(f"| {name} | {engine.get('build', {}).get('version', '-')} | {engine['settings']} |")
    failed = {name: engine["failure"] for name, engine in engines.items() if "failure" in engine}
    if failed:
        lines += ["", "Not measured, or not to the end:", ""]
        lines += [f"- {name}: {why}" for name, why in failed.items()]
    return [*lines, ""]
