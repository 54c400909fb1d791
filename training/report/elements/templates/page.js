// Sorts and filters tables, jumps to what is typed, opens what is linked to. The page says everything without it.
"use strict";
(() => {
  const all = (where, what) => Array.from(where.querySelectorAll(what));

  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return "";
    const text = (cell.dataset.v ?? cell.textContent).trim();
    const number = Number(text.replace(/[,%\s]/g, "").replace("\u2212", "-").replace(/^<0?/, ""));
    if (text === "" || text === "n/a") return null;
    return Number.isNaN(number) ? text : number;
  };

  const compare = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // undefined comes last either way
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
    return typeof a === "number" ? -1 : 1;
  };

  const sort = (table, head, column) => {
    const down = head.getAttribute("aria-sort") === "descending" ? false : head.hasAttribute("aria-sort") || head.matches(".n");
    all(table.tHead, "th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row, i) => ({ row, i, value: value(row, column) }));
    rows.sort((a, b) => {
      const order = compare(a.value, b.value);
      const last = a.value === null || b.value === null;
      return (down && !last ? -order : order) || a.i - b.i;
    });
    body.append(...rows.map((entry) => entry.row));
  };

  all(document, "table.sort").forEach((table) => {
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      if (head.matches(".iv") || !head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head, column));
      head.append(button);
    });
  });

  const field = (label, list) => {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = label;
    input.setAttribute("aria-label", label);
    input.autocomplete = "off";
    if (list) input.setAttribute("list", list);
    return input;
  };

  const filter = (holder, items, label) => {
    const tools = document.createElement("div");
    tools.className = "tools";
    const input = field(label);
    const said = document.createElement("span");
    said.setAttribute("role", "status");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      items.forEach((item) => {
        const text = item.textContent.toLowerCase();
        item.hidden = !words.every((word) => text.includes(word));
        shown += item.hidden ? 0 : 1;
      });
      said.textContent = words.length ? `${shown} of ${items.length}` : "";
    });
    tools.append(input, said);
    holder.before(tools);
    return tools;
  };

  all(document, "table.filter").forEach((table) => {
    const rows = Array.from(table.tBodies[0].rows);
    if (rows.length > 5) filter(table.closest(".scroll") ?? table, rows, table.dataset.filter ?? "Filter rows");
  });

  all(document, ".cards").forEach((cards) => {
    const items = all(cards, "details.card");
    if (!items.length) return;
    const tools = filter(cards, items, cards.dataset.filter ?? "Filter");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Open all";
    button.addEventListener("click", () => {
      const open = items.some((item) => !item.open);
      items.forEach((item) => (item.open = open));
      button.textContent = open ? "Close all" : "Open all";
    });
    tools.append(button);
  });

  const open = (id) => {
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
      if (at.hidden) at.hidden = false;
    }
    target.scrollIntoView();
  };
  const here = () => open(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", here);
  if (location.hash) here();

  const nav = document.querySelector("nav");
  const places = new Map();
  all(document, "[data-jump]").forEach((place) => places.set(place.dataset.jump, place.id));
  if (nav && places.size) {
    const list = document.createElement("datalist");
    list.id = "places";
    places.forEach((_, name) => {
      const option = document.createElement("option");
      option.value = name;
      list.append(option);
    });
    const input = field("Jump to \u2026", list.id);
    const jump = () => {
      const wanted = input.value.trim().toLowerCase();
      const name = [...places.keys()].find((key) => key.toLowerCase() === wanted)
        ?? [...places.keys()].find((key) => wanted && key.toLowerCase().includes(wanted));
      if (name === undefined) return;
      history.replaceState(null, "", `#${places.get(name)}`);
      open(places.get(name));
    };
    input.addEventListener("change", jump);
    const tools = document.createElement("div");
    tools.className = "tools";
    tools.append(input, list);
    nav.append(tools);
  }

  const links = new Map(all(document, "nav a").map((link) => [link.hash.slice(1), link]));
  const current = () => {
    let last = null;
    links.forEach((link, id) => {
      const section = document.getElementById(id);
      if (section && section.getBoundingClientRect().top < innerHeight / 3) last = link;
      link.removeAttribute("aria-current");
    });
    if (last) last.setAttribute("aria-current", "true");
  };
  addEventListener("scroll", current, { passive: true });
  current();

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all(document, "details:not([open])");
    closed.forEach((item) => (item.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((item) => (item.open = false)));
})();
