/**
 * Bar charts over time, as SVG drawn by hand. The bars are stretched to the width there is; words and figures
 * stand around them as text, so that they keep their size on a phone. Below each chart is its table.
 * Nothing here listens: `takeCharts` does, for all charts of a place, which `syncList` may redraw.
 */

import { h } from "./dom.js";
import { neutralise } from "./text.js";

/** One series: `values` are one for each bucket; `tone` is a class of stats.css. */
/** @typedef {{name: string, tone: string, values: number[]}} Series */

/**
 * `stacked` series stand on each other; else each begins at zero, the first in front.
 * `labels` name the buckets, `ends` what stands under the axis; `whole`: there is no half of what is counted.
 * @typedef {{id: string, title: string, tells: string, source: "agents"|"core", stacked: boolean, whole: boolean,
 *   labels: string[], ends: string[], series: Series[], format: (value: number) => string}} Chart
 */

const SVG = "http://www.w3.org/2000/svg";
const BAR_UNITS = 10; // of the drawing's own width, for each bucket
const GAP_UNITS = 1.5;
const HEIGHT_UNITS = 100;
const STEPS = [1, 2, 2.5, 5, 10];

/** @type {Map<string, Chart>} */
const drawn = new Map();

/**
 * An SVG element. Attributes only: the page's policy takes no styles.
 * @param {string} tag @param {Record<string, string|number>} attributes @param {...(Node|string)} children
 * @returns {SVGElement}
 */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, neutralise(value));
  element.append(...children.map((child) => (typeof child === "string" ? neutralise(child) : child)));
  return element;
}

/** The next round number: what the axis ends with. @param {number} most */
export function roundUp(most) {
  if (!(most > 0) || !Number.isFinite(most)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const step = STEPS.find((each) => each * power >= most * (1 - 1e-9)) ?? 10;
  return step * power;
}

/** Of each bucket, what its bars reach. @param {Chart} chart @returns {number[]} */
export function heights(chart) {
  return chart.labels.map((_, index) => {
    const values = chart.series.map((each) => each.values[index] ?? 0);
    return chart.stacked ? values.reduce((sum, value) => sum + value, 0) : Math.max(0, ...values);
  });
}

/** What a bucket holds, in words. @param {Chart} chart @param {number} index */
export function inWords(chart, index) {
  const parts = chart.series
    .filter((each) => (each.values[index] ?? 0) > 0)
    .map((each) => `${each.name} ${chart.format(each.values[index])}`);
  return `${chart.labels[index]}: ${parts.length > 0 ? parts.join(", ") : "nothing"}`;
}

/** The bars of one bucket. @param {Chart} chart @param {number} index @param {number} top */
function column(chart, index, top) {
  /** @type {SVGElement[]} */
  const bars = [];
  let base = 0;
  for (const each of chart.stacked ? chart.series : [...chart.series].reverse()) {
    const value = each.values[index] ?? 0;
    if (!(value > 0)) continue;
    const height = (value / top) * HEIGHT_UNITS;
    bars.push(
      svg("rect", {
        class: each.tone,
        x: index * BAR_UNITS + GAP_UNITS / 2,
        y: (HEIGHT_UNITS - base - height).toFixed(2),
        width: BAR_UNITS - GAP_UNITS,
        height: height.toFixed(2),
      }),
    );
    if (chart.stacked) base += height;
  }
  return svg("g", { class: "column", "data-key": index }, ...bars);
}

/** @param {Chart} chart @param {number} top */
function plot(chart, top) {
  const width = Math.max(1, chart.labels.length) * BAR_UNITS;
  const lines = [0, HEIGHT_UNITS / 2, HEIGHT_UNITS].map((y) =>
    svg("line", { class: "grid-line", x1: 0, x2: width, y1: y, y2: y }),
  );
  return svg(
    "svg",
    {
      class: "plot",
      role: "img",
      viewBox: `0 0 ${width} ${HEIGHT_UNITS}`,
      preserveAspectRatio: "none",
      "aria-labelledby": `chart-${chart.id}-said chart-${chart.id}-described`,
    },
    svg("title", { id: `chart-${chart.id}-said` }, chart.title),
    svg("desc", { id: `chart-${chart.id}-described` }, described(chart)),
    ...lines,
    ...chart.labels.map((_, index) => column(chart, index, top)),
  );
}

/** What someone who does not see the bars is told of them. @param {Chart} chart */
export function described(chart) {
  const reached = heights(chart);
  const most = Math.max(0, ...reached);
  if (most === 0) return `${chart.tells} Nothing in this time.`;
  const at = chart.labels[reached.indexOf(most)];
  return `${chart.tells} Highest: ${chart.format(most)}, ${at}. The table below has every figure.`;
}

/** @param {Chart} chart */
function legend(chart) {
  return h(
    "ul",
    { class: "legend" },
    ...chart.series.map((each) =>
      h("li", null, h("span", { class: `swatch ${each.tone}`, "aria-hidden": "true" }), h("span", { class: "words" }, each.name)),
    ),
  );
}

/** Every figure of a chart; buckets without any are left out. @param {Chart} chart */
function table(chart) {
  const filled = heights(chart).flatMap((height, index) => (height > 0 ? [index] : []));
  const rows = filled.map((index) =>
    h(
      "tr",
      { "data-key": chart.labels[index] },
      h("th", { scope: "row" }, chart.labels[index]),
      ...chart.series.map((each) => h("td", null, chart.format(each.values[index] ?? 0))),
    ),
  );
  const heads = chart.series.map((each) => h("th", { scope: "col" }, each.name));
  return h(
    "details",
    { class: "fold chart-table" },
    h("summary", null, "as a table", h("span", { class: "sr" }, `: ${chart.title}`)),
    h(
      "div",
      { class: "stats-scroll", tabindex: "0", role: "region", "aria-label": `${chart.title}, as a table` },
      h(
        "table",
        { class: "figures" },
        h("caption", { class: "sr" }, chart.title),
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "time"), ...heads)),
        h("tbody", null, ...rows),
      ),
    ),
  );
}

/** @param {"agents"|"core"} source */
export function sourceChip(source) {
  return source === "core"
    ? h("span", { class: "chip ok" }, "core counted")
    : h("span", { class: "chip warn" }, "agents say");
}

/** A figure with its chart, its legend and its table. @param {Chart} chart */
export function drawChart(chart) {
  drawn.set(chart.id, chart);
  const top = roundUp(Math.max(chart.whole ? 2 : 0, ...heights(chart)));
  const scale = [top, top / 2, 0].map((value) =>
    h("span", null, chart.whole && !Number.isInteger(value) ? "" : chart.format(value)),
  );
  return h(
    "figure",
    { class: "chart", "data-chart": chart.id },
    h("figcaption", { class: "line" }, h("h3", null, chart.title), sourceChip(chart.source)),
    h("div", { class: "chart-frame" }, h("div", { class: "scale", "aria-hidden": "true" }, ...scale), plot(chart, top)),
    h("div", { class: "ends", "aria-hidden": "true" }, ...chart.ends.map((end) => h("span", null, end))),
    h("p", { class: "readout hint", "aria-hidden": "true", "data-island": true }),
    chart.series.length > 1 ? legend(chart) : null,
    table(chart),
  );
}

/** Which bucket a pointer is over. @param {Element} plot @param {number} x @param {number} buckets */
function bucketAt(plot, x, buckets) {
  const box = plot.getBoundingClientRect();
  const index = Math.floor(((x - box.left) / box.width) * buckets);
  return Math.min(buckets - 1, Math.max(0, index));
}

/** Says what is under the pointer, or the finger, of every chart within `place`. @param {HTMLElement} place */
export function takeCharts(place) {
  /** @param {PointerEvent} event */
  const read = (event) => {
    const plot = event.target instanceof Element ? event.target.closest(".plot") : null;
    const figure = plot?.closest("[data-chart]");
    const chart = drawn.get(figure?.getAttribute("data-chart") ?? "");
    const readout = figure?.querySelector(".readout");
    if (!plot || !chart || !readout || chart.labels.length === 0) return;
    const index = bucketAt(plot, event.clientX, chart.labels.length);
    readout.textContent = neutralise(inWords(chart, index));
    const columns = plot.querySelectorAll(".column");
    for (const [at, each] of columns.entries()) each.classList.toggle("pointed", at === index);
  };
  place.addEventListener("pointermove", read);
  place.addEventListener("pointerdown", read);
}
