"use strict";
// Makes the page interactive. Without this script everything can be read: tables in their order, charts as SVG.
(() => {
  const SEARCHED = 12; // rows from which a table can be searched
  const SHOWN = 20; // rows of a table that is folded until it is searched or opened
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // --- tables: sorted by a click on a column's name, searched by words, filtered by a cell of the confusion matrix

  const numberIn = (text) => parseFloat(text.replaceAll(",", "").replace(/^[^\d.+-]+/, "").replace("+", ""));

  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    const sort = (column, direction) => {
      const key = ({ cells }) => cells[column].textContent.trim();
      const compare = headings[column].classList.contains("text")
        ? (a, b) => direction * key(a).localeCompare(key(b), "en", { numeric: true })
        : (a, b) => {
            const [first, second] = [numberIn(key(a)), numberIn(key(b))];
            // Values that are not numbers come last in both directions.
            return Number.isNaN(first) - Number.isNaN(second) || direction * (first - second) || 0;
          };
      body.append(...rows.toSorted(compare));
    };
    headings.forEach((heading, column) => {
      if (heading.tagName !== "TH") return; // a column of bars
      const button = make("button", { type: "button" }, ...heading.childNodes);
      button.addEventListener("click", () => {
        const first = heading.classList.contains("text") ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = heading.ariaSort === first ? other : first;
        for (const each of headings) each.removeAttribute("aria-sort");
        heading.ariaSort = order;
        sort(column, order === "ascending" ? 1 : -1);
        table.dispatchEvent(new Event("change"));
      });
      heading.append(button);
    });
  };

  const searchable = (table) => {
    const rows = [...table.tBodies[0].rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const field = make("input", { type: "search", ariaLabel: `Search ${table.caption.textContent}` });
    const button = make("button", { type: "button" });
    const status = make("output");
    let [only, cell, folded] = ["", null, "folded" in table.dataset];
    const update = () => {
      const words = field.value.toLowerCase().split(/\s+/);
      const found = rows.filter(
        (row) => (cell === null || row.dataset.cell === cell) && words.every((word) => texts.get(row).includes(word)),
      );
      const narrowed = cell !== null || field.value.trim() !== "";
      const shown = new Set(narrowed || !folded ? found : [...table.tBodies[0].rows].slice(0, SHOWN));
      for (const row of rows) row.hidden = !shown.has(row);
      button.hidden = !narrowed && shown.size === rows.length;
      button.textContent = narrowed ? "Clear" : `Show all ${rows.length}`;
      status.textContent = `${only}${shown.size} of ${rows.length} rows`;
    };
    button.addEventListener("click", () => {
      if (cell === null && field.value.trim() === "") folded = false;
      select(null, "");
    });
    const select = (wanted, words) => {
      [cell, only, field.value] = [wanted, words, ""];
      for (const link of document.querySelectorAll("a[data-cell]")) {
        link.ariaCurrent = link.dataset.cell === wanted ? "true" : null;
      }
      update();
    };
    field.addEventListener("input", update);
    table.addEventListener("change", update);
    const tools = make("p", { className: "tools" }, make("label", {}, "Search ", field), button, status);
    (table.closest(".scroll") ?? table).before(tools);
    update();
    return select;
  };

  // --- charts: values under the pointer or the arrow keys; dragging, + and - zoom

  const UPDATES = [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((power) => [power, 2 * power, 5 * power]); // whole numbers
  const group = uPlot.sync("update");
  const together = (plot) => (group.plots.includes(plot) ? group.plots : [plot]);
  const narrow = (plot, factor) => {
    const { min, max } = plot.scales.x;
    const middle = plot.cursor.idx == null ? (min + max) / 2 : plot.data[0][plot.cursor.idx];
    const [first, last] = [plot.data[0][0], plot.data[0].at(-1)];
    const half = ((max - min) * factor) / 2;
    return { min: Math.max(first, middle - half), max: Math.min(last, middle + half) };
  };
  const zoom = (plot, factor) => {
    const range = factor ? narrow(plot, factor) : { min: plot.data[0][0], max: plot.data[0].at(-1) };
    for (const each of together(plot)) each.setScale("x", range);
  };
  const step = (plot, by) => {
    const x = plot.data[0];
    const next = Math.min(x.length - 1, Math.max(0, (plot.cursor.idx ?? (by > 0 ? -1 : x.length)) + by));
    for (const each of together(plot)) {
      each.setCursor({ left: each.valToPos(x[next], "x"), top: each.over.clientHeight / 2 });
    }
  };
  const KEYS = {
    ArrowRight: (plot) => step(plot, 1),
    ArrowLeft: (plot) => step(plot, -1),
    "+": (plot) => zoom(plot, 0.5),
    "-": (plot) => zoom(plot, 2),
    0: (plot) => zoom(plot, null),
  };

  const options = (spec, width, color) => {
    const axis = { stroke: color("muted"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false } };
    const named = { label: spec.label, labelSize: 18, labelFont: "12px system-ui" };
    const value = (_, at) => (at == null ? "–" : number.format(at));
    const marked = (plot) => {
      if (spec.best == null) return;
      const x = plot.valToPos(spec.best, "x", true);
      const { left, top, width: across, height } = plot.bbox;
      if (x < left || x > left + across) return;
      plot.ctx.save();
      plot.ctx.strokeStyle = color("muted");
      plot.ctx.setLineDash([4, 4]);
      plot.ctx.strokeRect(x, top, 0, height);
      plot.ctx.restore();
    };
    return {
      width,
      height: 190,
      scales: { x: { time: false, range: spec.range }, y: { range: spec.y ?? spec.range }, count: {} },
      cursor: {
        sync: spec.synced ? { key: group.key } : undefined,
        drag: { x: true, y: false },
        y: false,
        points: { size: 7, fill: (plot, at) => plot.series[at].stroke(plot, at) },
        hover: { prox: 30, skip: [null, undefined] }, // a split has no value at the other's updates: that beside it
      },
      axes: [
        { ...axis, ...(spec.synced ? { incrs: UPDATES } : named), size: 30, grid: { show: false } },
        { ...axis, size: 62, values: (_, splits) => splits.map((at) => number.format(at)) },
      ],
      series: [
        { label: spec.label, value },
        ...spec.series.map(({ label, color: name, kind }) => ({
          label,
          value,
          spanGaps: true,
          stroke: color(name),
          width: 2,
          dash: kind === "guide" ? [4, 4] : undefined,
          scale: kind === "legend" ? "count" : "y",
          paths: kind === "legend" ? () => null : undefined,
          points: { show: kind === "points", size: 7, fill: color("bg") },
        })),
      ],
      hooks: { draw: [marked] },
    };
  };

  const draw = (figure) => {
    const spec = JSON.parse(figure.dataset.chart);
    const css = getComputedStyle(document.documentElement);
    const at = make("div");
    figure.append(at);
    const plot = new uPlot(
      options(spec, figure.clientWidth, (name) => css.getPropertyValue(`--${name}`).trim()),
      spec.data,
      at,
    );
    plot.root.querySelector(".u-legend").ariaLive = "polite";
    figure.plot = plot;
  };

  const interactive = (figure) => {
    figure.setAttribute("role", "group");
    figure.ariaLabel += "; arrow keys read the values, plus and minus zoom, 0 shows all";
    figure.tabIndex = 0;
    const buttons = [["+", "zoom in", "+"], ["−", "zoom out", "-"], ["all", "show all", "0"]].map(([text, title, key]) => {
      const button = make("button", { type: "button", title, ariaLabel: title }, text);
      button.addEventListener("click", () => KEYS[key](figure.plot));
      return button;
    });
    figure.prepend(make("div", { className: "zoom" }, ...buttons));
    draw(figure);
    figure.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
      event.preventDefault();
      KEYS[event.key](figure.plot);
    });
    new ResizeObserver(() => {
      if (figure.clientWidth) figure.plot.setSize({ width: figure.clientWidth, height: figure.plot.height });
    }).observe(figure);
  };

  document.documentElement.classList.add("js");
  const charts = [...document.querySelectorAll("[data-chart]")];
  charts.forEach(interactive);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const figure of charts) {
      figure.plot.root.parentElement.remove();
      figure.plot.destroy();
      draw(figure);
    }
  });
  const selections = new Map();
  for (const table of document.querySelectorAll("table.rows")) {
    if (table.tBodies[0].rows.length > 1) sortable(table);
    const isSearched = table.tBodies[0].rows.length >= SEARCHED || table.id === "errors-table";
    if (isSearched) selections.set(table, searchable(table));
  }
  for (const area of document.querySelectorAll(".scroll")) {
    if (area.scrollWidth > area.clientWidth) area.tabIndex = 0; // so that arrow keys scroll it in every browser
  }
  for (const link of document.querySelectorAll("a[data-cell]")) {
    const table = document.getElementById("errors-table");
    link.addEventListener("click", () => selections.get(table)?.(link.dataset.cell, `${link.ariaLabel}: `));
  }
})();
