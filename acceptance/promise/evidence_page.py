"""Reads an evidence report as somebody else would: with the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

VOID = {"meta", "br", "input", "rect", "path", "circle"}


class Page(html.parser.HTMLParser):
    """What stands in `evidence.html`: elements, texts by element, and the numbers that name their twin in the JSON."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str, str | None]] = []
        self.contents: dict[str, list[tuple[dict, str]]] = {}
        self._open: list[tuple[str, dict, list[str]]] = []
        self.feed(self.text)
        self.close()
        assert not self._open, f"not closed: {[name for name, _, _ in self._open]}"

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.elements.append((tag, values))
        if tag not in VOID:
            self._open.append((tag, values, []))

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        for _, _, texts in self._open:
            texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        name, values, texts = self._open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"
        text = "".join(texts)
        self.contents.setdefault(tag, []).append((values, text))
        if "data-json" in values:
            self.numbers.append((values["data-json"], text, values.get("data-unit")))

    def of(self, tag: str, **wanted: str) -> list[str]:
        """The texts of all elements with this tag and these attributes."""
        return [text for values, text in self.contents.get(tag, []) if all(values.get(k) == v for k, v in wanted.items())]

    def rows(self) -> dict:
        """All files, as the script shows them."""
        return json.loads(self.of("script", id="files-data")[0])

    def check_alone(self) -> None:
        """Nothing comes from elsewhere, and nothing runs but what the policy names by its hash."""
        for tag, values in self.elements:
            assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "foreignobject", "image", "use"), tag
            for name, value in values.items():
                assert not name.startswith("on") and name != "style", f"{tag} {name}"
                assert name not in ("src", "href", "xlink:href", "action", "srcset", "data"), f"{tag} {name}={value}"
        (style,) = self.of("style")
        scripts = [(values, text) for values, text in self.contents["script"]]
        assert [values.get("type") for values, _ in scripts] == ["application/json", None]
        assert "url(" not in style and "@import" not in style
        (policy,) = [values["content"] for tag, values in self.elements if values.get("http-equiv") == "Content-Security-Policy"]
        for directive, text in (("style-src", style), ("script-src", scripts[1][1])):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{directive} 'sha256-{digest}'" in policy, policy
        assert "default-src 'none'" in policy and "unsafe" not in policy
        # No other tag begins where a name could have put one.
        assert len(re.findall(r"<script", self.text)) == 2

    def check_numbers(self, document: dict) -> set[str]:
        """Every number of the page is that of the JSON; gives which ones there are."""
        for where, text, unit in self.numbers:
            value = at(document, where)
            if unit == "bytes":
                assert text == human(value), f"{where}: {text} is not {value}"
            elif isinstance(value, int):
                assert text == f"{value:,}", f"{where}: {text} is not {value}"
            else:
                assert text == str(value), f"{where}: {text} is not {value}"
        return {where for where, _, _ in self.numbers}


def visible(text: str) -> str:
    """Characters that nobody sees, or that turn text around, are spelled out in the page."""
    hidden = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
    return hidden.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)


def at(document, where: str):
    for part in where.split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def human(value: int) -> str:
    if value < 1024:
        return f"{value} B"
    amount = value / 1024
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} PiB"


def check_sums(document: dict) -> None:
    """The sums of the JSON are those of its own list of files."""
    files, totals = document["files"], document["totals"]
    assert totals["items"] == len(files) and totals["bytes"] == sum(file["bytes"] for file in files)
    assert totals["frames"] == sum(file["frames"] for file in files)
    for member, key in (("byVerdict", "verdict"), ("byKind", "kind")):
        for name, tally in totals[member].items():
            chosen = [file["bytes"] for file in files if file[key] == name]
            assert tally == {"items": len(chosen), "bytes": sum(chosen)}, name
        assert sum(tally["items"] for tally in totals[member].values()) == len(files)
    seen = 0
    for zone in document["zones"]:
        for version in zone["versions"]:
            chosen = [file["bytes"] for file in files if (file["zone"], file["version"]) == (zone["zone"], version["version"])]
            assert (version["items"], version["bytes"]) == (len(chosen), sum(chosen))
        assert zone["items"] == sum(version["items"] for version in zone["versions"])
        seen += zone["items"]
    assert seen + totals["withoutZone"]["items"] == len(files)
    for root in document["roots"]:
        zones = [zone for zone in document["zones"] if zone["root"] == root["key"]]
        assert (root["zones"], root["items"]) == (len(zones), sum(zone["items"] for zone in zones))
        assert root["darkZones"] == sum(zone["state"] == "dark" for zone in zones)
    assert totals["findings"] == len(document["findings"]) == sum(document["findingsByClass"].values())
    assert totals["keyCalls"] == document["keyCalls"]["total"] == len(document["keyCalls"]["calls"])
