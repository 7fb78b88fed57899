"use strict";
(() => {
  const data = JSON.parse(document.getElementById("files-data").textContent);
  const body = document.getElementById("files-rows");
  const query = document.getElementById("files-query");
  const verdict = document.getElementById("files-verdict");
  const count = document.getElementById("files-count");
  const before = document.getElementById("files-before");
  const after = document.getElementById("files-after");
  const PAGE = 100;
  let page = 0;
  let chosen = data.rows;

  const cell = (row, text, kind) => {
    const td = document.createElement("td");
    if (kind) td.className = kind;
    td.textContent = text;
    row.append(td);
    return td;
  };
  const grouped = (value) => value.toString().replace(/\B(?=(\d{3})+$)/g, ",");

  const show = () => {
    const from = page * PAGE;
    const rows = chosen.slice(from, from + PAGE).map((item) => {
      const [path, kind, owner, zone, version, bytes, frames, result] = item;
      const row = document.createElement("tr");
      cell(row, path, "mono");
      cell(row, data.kinds[kind], "nowrap");
      cell(row, owner < 0 ? "" : data.owners[owner]);
      cell(row, zone < 0 ? "" : data.zones[zone].slice(0, 8), "mono nowrap").title = zone < 0 ? "" : data.zones[zone];
      cell(row, version === null ? "" : "v" + version, "number");
      cell(row, grouped(bytes), "number");
      cell(row, grouped(frames), "number");
      const tag = document.createElement("span");
      tag.className = "tag " + data.verdicts[result];
      tag.textContent = data.verdicts[result];
      cell(row, "").append(tag);
      return row;
    });
    body.replaceChildren(...rows);
    const end = Math.min(from + PAGE, chosen.length);
    count.textContent = chosen.length === 0 ? "no file" : `${grouped(from + 1)}–${grouped(end)} of ${grouped(chosen.length)}`;
    before.disabled = page === 0;
    after.disabled = end >= chosen.length;
  };

  const search = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = verdict.value;
    chosen = data.rows.filter((item) => {
      const [path, kind, owner, zone, , , , result] = item;
      if (wanted !== "" && data.verdicts[result] !== wanted) return false;
      if (words.length === 0) return true;
      const text = [path, data.kinds[kind], owner < 0 ? "" : data.owners[owner], zone < 0 ? "" : data.zones[zone]].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    page = 0;
    show();
  };

  query.addEventListener("input", search);
  verdict.addEventListener("change", search);
  before.addEventListener("click", () => { page -= 1; show(); });
  after.addEventListener("click", () => { page += 1; show(); });
  document.getElementById("files-search").hidden = false;
  document.getElementById("files-pages").hidden = false;
  show();
})();
