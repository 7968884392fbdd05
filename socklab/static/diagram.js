"use strict";
// The drawing of one play: marks come in (socklab/diagram.py says which), a canvas and a list of what happened go out.
//
//   Store    marks by id, and from them: lanes, rows (what has a place in time), the scale from time to height
//   Diagram  draws what of it is in view, and finds what is under the pointer
//
// Nothing that a server or a client sent is ever taken for markup: text goes to the canvas or into textContent.

const MS = 1e6; // nanoseconds
const ROW = 22; // pixels between two things that happen one after the other, at zoom 1
const LANE = 132; // pixels between two lanes, at most; not less than LEAST
const LEAST = 58;
const HEAD = 44; // pixels of the lanes' names
const AXIS = 74; // pixels of the times at the left

const KINDS = { message: "messages", wire: "TCP and packets", log: "servers' logs", other: "sockets and processes" };

function kindOf(mark) {
  if (mark.mark === "arrow") return mark.wire ? "wire" : "message";
  return mark.what === "log" ? "log" : "other";
}

function timeOf(mark) {
  if (mark.mark === "point") return mark.at;
  return mark.start ?? mark.end;
}

function seconds(ns, digits = 3) {
  return (ns / 1e9).toFixed(digits) + " s";
}

function span(ns) {
  if (ns < 1000) return ns + " ns";
  if (ns < MS) return (ns / 1000).toFixed(0) + " µs";
  if (ns < 1000 * MS) return (ns / MS).toFixed(ns < 10 * MS ? 1 : 0) + " ms";
  return (ns / 1e9).toFixed(2) + " s";
}

// `dropped (loss 10%)`; of a connect `failed: timed out`
function fateOf(mark) {
  if (mark.what === "connect") return `failed: ${mark.by}`;
  return mark.by && mark.by !== mark.fate ? `${mark.fate} (${mark.by})` : mark.fate;
}

function isLost(mark) {
  return mark.fate === "dropped" || mark.fate === "refused";
}

// `bob ↔ alice, server`: links by their ends, each way that there is.
function linksIn(bands) {
  const ways = new Map();
  for (const { source, target } of bands) {
    const back = ways.get(`${target}\n${source}`);
    if (back) back.way = "↔";
    else ways.set(`${source}\n${target}`, { ends: [source, target], way: "→" });
  }
  const links = [...ways.values()];
  const common = links[0].ends.find((end) => links.every((link) => link.ends.includes(end)));
  if (links.length === 1 || common === undefined || links.some((link) => link.way !== "↔")) {
    return links.map(({ ends, way }) => ends.join(` ${way} `)).join(", ");
  }
  return `${common} ↔ ${links.map(({ ends }) => ends.find((end) => end !== common)).join(", ")}`;
}

class Store {
  constructor() {
    this.evenly = true; // each thing has its row; else height is time
    this.hidden = new Set(); // lanes
    this.kinds = new Set(Object.keys(KINDS));
    this.workers = true; // threads and processes have lanes of their own
    this.search = "";
    this.clear();
  }

  // As if nothing had happened; what the viewer wants to see stays.
  clear() {
    this.marks = new Map();
    this.lanes = [];
    this.steps = [];
    this.bands = [];
    this.lives = [];
    this.rows = [];
    this.play = null;
    this.verdict = null;
    this.counted = null;
    this.end = 0;
    this.arrange();
  }

  apply(marks) {
    for (const mark of marks) {
      const old = this.marks.get(mark.id);
      if (old) {
        Object.assign(old, mark);
        continue;
      }
      this.marks.set(mark.id, mark);
      if (mark.mark === "lane") {
        this.lanes.push(mark);
        if (mark.role === "worker" && this.lanes.length === 13) this.workers = false; // too many to be seen
      }
      if (mark.mark === "step") this.steps.push(mark);
      else if (mark.mark === "band") this.bands.push(mark);
      else if (mark.mark === "life") this.lives.push(mark);
      else if (mark.mark === "play") this.play = mark;
      else if (mark.mark === "verdict") this.verdict = mark;
      else if (mark.mark === "counted") this.counted = mark;
    }
    this.arrange();
  }

  // The lanes in view, from left to right: the workers of a server stand beside it.
  inView() {
    const shown = this.lanes.filter((lane) => !this.hidden.has(lane.name) && lane.role !== "worker");
    if (!this.workers) return shown;
    return shown.flatMap((lane) => [
      lane,
      ...this.lanes.filter((worker) => worker.of === lane.name && worker.role === "worker" && !this.hidden.has(worker.name)),
    ]);
  }

  // Where what happens on a lane is drawn: a worker that is not in view is its server.
  place(name) {
    const lane = this.marks.get("lane:" + name);
    if (!lane) return undefined;
    return this.position.get(name) ?? (lane.of ? this.position.get(lane.of) : undefined);
  }

  // The lane of the host that a lane belongs to.
  host(name) {
    return this.marks.get("lane:" + name)?.of || name;
  }

  // What a lane is called where there is room.
  called(name) {
    const lane = this.marks.get("lane:" + name);
    return lane?.role === "worker" ? lane.title : name;
  }

  // From when to when a socket was in which state of TCP; without states, that it was there.
  stretches(life) {
    const { states } = life;
    if (!states.length) return [[life.start, life.end ?? this.end, ""]];
    const ends = [...states.slice(1).map(([at]) => at), life.number || life.end === null ? this.end : life.end];
    return states.map(([at, state], i) => [at, ends[i], state]).filter(([, , state]) => state !== "gone");
  }

  // The states in which the sockets between two hosts were at some moment.
  statesAt(a, b, t) {
    const told = [];
    for (const life of this.lives) {
      const [here, there] = [this.host(life.lane), this.host(life.peer)];
      if (!(here === a && there === b) && !(here === b && there === a)) continue;
      const now = this.stretches(life).filter(([from, to, state]) => state && from <= t && t <= to).pop();
      if (now) told.push(`${here} ${now[2]}`);
    }
    return told;
  }

  // What is in view, in the order of time, and the height of each moment.
  arrange() {
    this.position = new Map(this.inView().map((lane, i) => [lane.name, i]));
    const wanted = this.search.toLowerCase();
    const rows = [];
    let end = this.verdict ? this.verdict.at : 0;
    for (const mark of this.marks.values()) {
      if (mark.mark === "step") end = Math.max(end, mark.end ?? mark.start);
      if (mark.mark !== "arrow" && mark.mark !== "point") continue;
      end = Math.max(end, mark.end ?? 0, timeOf(mark));
      if (!this.kinds.has(kindOf(mark))) continue;
      if (mark.mark === "arrow") {
        if (this.place(mark.source) === undefined || this.place(mark.target) === undefined) continue;
      } else if (this.place(mark.lane) === undefined) continue;
      if (wanted && !`${mark.text} ${mark.what} ${mark.lane || mark.source + " " + mark.target} ${mark.fate ? fateOf(mark) : ""}`.toLowerCase().includes(wanted)) continue;
      rows.push(mark);
    }
    rows.sort((a, b) => timeOf(a) - timeOf(b));
    this.rows = rows;
    this.end = end;
    this.scale();
  }

  // Even: every moment at which something happens is a row further down, and a long pause a little more.
  scale() {
    const times = [0];
    for (const mark of this.rows) {
      times.push(timeOf(mark));
      if (mark.end != null) times.push(mark.end);
    }
    for (const step of this.steps) times.push(step.start);
    for (const band of this.bands) times.push(band.start, band.end ?? this.end);
    const states = new Set();
    if (this.kinds.has("wire")) {
      for (const life of this.lives) if (this.place(life.lane) !== undefined) for (const [t] of life.states) states.add(t);
    }
    times.push(...states, this.end);
    times.sort((a, b) => a - b);
    const starts = new Set([...this.rows.map(timeOf), ...this.bands.map((band) => band.start)]);
    const faults = new Map(); // when faults begin that are not alike, each with a line that tells it
    for (const { start, end, text } of this.bands) faults.set(start, (faults.get(start) ?? new Set()).add(`${end} ${text}`));
    this.times = [];
    this.heights = [];
    let height = 0;
    let last = -1;
    for (const t of times) {
      if (t === last) continue;
      const gap = last < 0 ? 0 : t - last;
      if (this.evenly) {
        const row = starts.has(t) ? ROW : states.has(t) ? 13 : 7;
        height += last < 0 ? 0 : row + Math.min(40, 6 * Math.log2(1 + gap / (5 * MS))) + 12 * Math.min(faults.get(last)?.size ?? 0, 4);
      }
      this.times.push(t);
      this.heights.push(height);
      last = t;
    }
    if (!this.evenly) {
      const whole = Math.max(600, this.rows.length * 3);
      this.heights = this.times.map((t) => (t / Math.max(this.end, 1)) * whole);
    }
    this.height = (this.heights[this.heights.length - 1] || 0) + 2 * ROW;
  }

  // Pixels from the top at zoom 1 of a time, and back.
  y(t) {
    return between(t, this.times, this.heights);
  }

  t(y) {
    return between(y, this.heights, this.times);
  }

  // The first row at or after a time.
  firstAt(t) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (timeOf(this.rows[middle]) < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  failedStep() {
    return this.steps.filter((step) => step.phase === "failed").sort((a, b) => b.depth - a.depth)[0];
  }
}

// Of two lists that grow together, the value in the second for one in the first.
function between(value, from, to) {
  let low = 0;
  let high = from.length - 1;
  if (high < 0) return 0;
  if (value <= from[0]) return to[0];
  if (value >= from[high]) return to[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= value) low = middle;
    else high = middle;
  }
  const whole = from[high] - from[low] || 1;
  return to[low] + ((value - from[low]) / whole) * (to[high] - to[low]);
}

class Diagram {
  constructor(canvas, store, on) {
    this.canvas = canvas;
    this.store = store;
    this.on = on; // select(mark, by), hover(mark), link(source, target), moved()
    this.zoom = 1;
    this.top = 0; // pixels of the drawing above the window
    this.left = 0;
    this.selected = null;
    this.hovered = null;
    this.lit = ""; // the step whose marks are lit
    this.follow = false; // stay at the end while it grows
    this.drawn = 0; // frames
    this.wanted = false;
    this.pen = canvas.getContext("2d");
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.resize();
  }

  resize() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    this.width = Math.max(200, box.width);
    this.tall = Math.max(160, box.height);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.tall * ratio);
    this.canvas.style.width = this.width + "px";
    this.canvas.style.height = this.tall + "px";
    this.ratio = ratio;
    this.draw();
  }

  // Draw soon; many calls in one frame are one drawing.
  draw() {
    if (this.wanted) return;
    this.wanted = true;
    requestAnimationFrame(() => {
      this.wanted = false;
      this.paint();
    });
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["ink", "faint", "paper", "panel", "message", "back", "wire", "bad", "good", "band", "accent", "worker"];
    const found = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
    found.font = style.getPropertyValue("--font").trim() || "sans-serif";
    return found;
  }

  gap() {
    const lanes = this.store.inView().length;
    return Math.max(LEAST, Math.min(lanes > 12 ? 110 : 340, (this.width - AXIS - 30) / Math.max(lanes, 1)));
  }

  x(place) {
    return AXIS + this.gap() * (place + 0.5) - this.left;
  }

  y(t) {
    return HEAD + 14 + this.store.y(t) * this.zoom - this.top;
  }

  // Pixels of all of the drawing, from the names of the lanes down.
  get whole() {
    return this.store.height * this.zoom + HEAD + 30;
  }

  bounds() {
    const high = this.whole - this.tall;
    const wide = this.gap() * this.store.inView().length + AXIS + 20 - this.width;
    this.top = Math.max(0, Math.min(this.top, Math.max(0, high)));
    this.left = Math.max(0, Math.min(this.left, Math.max(0, wide)));
  }

  paint() {
    const { pen, store } = this;
    if (this.follow) this.top = store.height * this.zoom;
    this.bounds();
    const c = (this.c = this.colours());
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.fillStyle = c.paper;
    pen.fillRect(0, 0, this.width, this.tall);
    const from = store.t((this.top - 60) / this.zoom);
    const to = store.t((this.top + this.tall) / this.zoom);
    this.paintSteps(from, to);
    this.paintBands(from, to);
    this.paintLives();
    this.hits = [];
    this.paintRows(from, to);
    this.paintAxis(from, to);
    this.paintHeads();
    this.drawn += 1;
    this.on.moved?.();
  }

  paintSteps(from, to) {
    const { pen, c, store } = this;
    for (const step of store.steps) {
      if (step.start > to || (step.end ?? store.end) < from) continue;
      const y0 = this.y(step.start);
      const y1 = Math.max(y0 + 1, this.y(step.end ?? store.end));
      if (step.id === this.lit || step.phase === "failed") {
        pen.globalAlpha = step.id === this.lit ? 0.16 : 0.1;
        pen.fillStyle = step.phase === "failed" ? c.bad : c.accent;
        pen.fillRect(AXIS, y0 - 3, this.width, y1 - y0 + 6);
        pen.globalAlpha = 1;
      }
      if (step.depth === 0) {
        pen.strokeStyle = c.panel;
        pen.beginPath();
        pen.moveTo(AXIS, Math.round(y0 - 4) + 0.5);
        pen.lineTo(this.width, Math.round(y0 - 4) + 0.5);
        pen.stroke();
      }
    }
  }

  // Faults of links: a hatched band across the lanes between their ends. Those that are alike from beginning to end are one.
  paintBands(from, to) {
    const { pen, c, store } = this;
    const alike = new Map();
    for (const band of store.bands) {
      const end = band.end ?? store.end;
      const [a, b] = [store.place(band.source), store.place(band.target)];
      if (band.start > to || end < from || a === undefined || b === undefined || a === b) continue;
      const key = `${band.start} ${end} ${band.text}`;
      if (!alike.has(key)) alike.set(key, { band, end, links: [], low: a, high: a });
      const group = alike.get(key);
      group.links.push(band);
      group.low = Math.min(group.low, a, b);
      group.high = Math.max(group.high, a, b);
    }
    const beside = new Map();
    for (const { band, end, links, low, high } of alike.values()) {
      const [x0, x1] = [this.x(low), this.x(high)];
      const y0 = this.y(band.start);
      const y1 = Math.max(y0 + 3, this.y(end));
      pen.fillStyle = this.hatch(c.band);
      pen.globalAlpha = 0.5;
      pen.fillRect(x0, y0, x1 - x0, y1 - y0);
      pen.globalAlpha = 1;
      pen.fillStyle = c.band;
      pen.fillRect(x0, y0, x1 - x0, 1);
      pen.fillRect(x0, y1, x1 - x0, 1);
      const nth = beside.get(y0) ?? 0; // others that begin at the same moment stand below
      beside.set(y0, nth + 1);
      const last = low === store.inView().length - 1 || high === store.inView().length - 1;
      this.label(`${linksIn(links)}: ${band.text}`, x0 + 6, y0 + 12 + 13 * nth, { colour: c.band, bold: true, most: last ? this.width - x0 - 10 : Math.max(150, x1 - x0 - 10) });
    }
  }

  hatch(colour) {
    if (this.hatched && this.hatched.colour === colour) return this.hatched.pattern;
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const pen = tile.getContext("2d");
    pen.strokeStyle = colour;
    pen.globalAlpha = 0.55;
    pen.beginPath();
    pen.moveTo(0, 8);
    pen.lineTo(8, 0);
    pen.stroke();
    this.hatched = { colour, pattern: this.pen.createPattern(tile, "repeat") };
    return this.hatched.pattern;
  }

  paintLives() {
    const { pen, c, store } = this;
    for (const lane of store.inView()) {
      const x = this.x(store.position.get(lane.name));
      pen.strokeStyle = lane.role === "worker" ? c.worker : c.faint;
      pen.setLineDash(lane.role === "worker" ? [2, 4] : [4, 4]);
      pen.beginPath();
      pen.moveTo(x, HEAD);
      pen.lineTo(x, this.tall);
      pen.stroke();
    }
    pen.setLineDash([]);
    const crowded = new Set(store.lives.filter((life) => life.beside && !store.position.has(life.lane)).map((life) => store.host(life.lane)));
    for (const life of store.lives) if (life.beside && store.host(life.lane) === life.lane) crowded.add(life.lane);
    for (const life of store.lives) {
      const place = store.place(life.lane);
      if (place === undefined) continue;
      // Sockets of a server stand beside each other; one that a thread or a process serves stands on its lane.
      const shared = !store.position.has(life.lane) || store.host(life.lane) === life.lane;
      const x = this.x(place) - (shared ? 9 * Math.min(life.beside, 5) : 0);
      const labels = []; // states that follow each other at once have one
      for (const [start, end, state] of store.stretches(life)) {
        const [y0, y1] = [this.y(start), this.y(end)];
        if (y1 < HEAD || y0 > this.tall) continue;
        this.stretch(x, y0, Math.max(2, y1 - y0), state);
        const before = labels[labels.length - 1];
        if (before && y0 < before[0] + 11) before[1] += ", " + state;
        else if (state) labels.push([y0, state]);
      }
      if (store.kinds.has("wire") && this.gap() >= 150 && !(shared && crowded.has(store.host(life.lane)))) {
        for (const [y, text] of labels) this.label(text, x - 7, y + 10, { colour: c.accent, most: Math.min(this.gap() - 20, x - AXIS - 10), small: true, right: true });
      }
      if (life.how) {
        pen.fillStyle = life.how === "reset" || life.how === "error" || life.how === "refused" ? c.bad : c.accent;
        pen.fillRect(x - 6, this.y(life.end) - 1, 12, 3);
      }
    }
  }

  // Hollow while it opens, full when established, half of it when one side has ended, dots in TIME_WAIT.
  stretch(x, y, tall, state) {
    const { pen, c } = this;
    pen.fillStyle = pen.strokeStyle = c.accent;
    pen.globalAlpha = 0.4;
    if (state === "TIME_WAIT") for (let at = y; at < y + tall; at += 6) pen.fillRect(x - 2, at, 4, 2);
    else if (state === "" || state === "ESTABLISHED") pen.fillRect(x - 3, y, 6, tall);
    else if (!state.startsWith("SYN")) pen.fillRect(x - 3, y, 3, tall);
    pen.globalAlpha = 0.8;
    if (state && state !== "ESTABLISHED" && state !== "TIME_WAIT") pen.strokeRect(x - 2.5, y + 0.5, 5, Math.max(1, tall - 1));
    pen.globalAlpha = 1;
  }

  paintRows(from, to) {
    const { store } = this;
    const rows = store.rows;
    const low = store.firstAt(from);
    // An arrow that began before may still be on its way; the longest tells how far to look back.
    let first = low;
    for (let i = low - 1; i >= 0 && i > low - 400; i--) if ((rows[i].end ?? 0) >= from) first = i;
    const many = store.firstAt(to) - low;
    const dense = ROW * this.zoom < 9 || many > 160;
    const taken = new Set();
    const grain = many > 2000 ? 3 : 1; // pixels
    const stride = Math.max(1, Math.floor(many / 20000));
    let shown = 0;
    for (let i = first; i < rows.length; i++) {
      const mark = rows[i];
      if (timeOf(mark) > to) break;
      if (stride > 1 && i % stride && !mark.fate && !mark.bad) continue;
      if (dense && mark !== this.selected && mark !== this.hovered) {
        // More than the eye can tell apart: one for each pixel and pair of lanes, bad ones first of all.
        const key = (Math.round(this.y(timeOf(mark)) / grain) * 4096 + (mark.mark === "arrow" ? store.place(mark.source) : 4095)) * 4096 + (store.place(mark.target ?? mark.lane) || 0);
        if (taken.has(key) && !mark.fate && !mark.bad) continue;
        taken.add(key);
      }
      if (mark.mark === "arrow") this.paintArrow(mark, dense);
      else this.paintPoint(mark, dense);
      shown += 1;
    }
    this.shown = shown;
  }

  ends(mark) {
    const { store } = this;
    // What is lost is lost between hosts, not between their threads.
    const [source, target] = isLost(mark) ? [store.host(mark.source), store.host(mark.target)] : [mark.source, mark.target];
    const x0 = this.x(store.place(source) ?? store.place(mark.source));
    const x1 = this.x(store.place(target) ?? store.place(mark.target));
    const slant = Math.min(10, ROW * this.zoom * 0.4);
    let y0 = mark.start == null ? null : this.y(mark.start);
    let y1 = mark.end == null ? null : this.y(mark.end);
    if (y0 === null) y0 = y1 - slant;
    if (y1 === null) y1 = y0 + slant;
    return [x0, y0, x1, y1];
  }

  paintArrow(mark, dense) {
    const { pen, c } = this;
    let [x0, y0, x1, y1] = this.ends(mark);
    const lost = isLost(mark);
    const on = mark === this.selected || mark === this.hovered;
    const dim = this.lit && mark.step !== this.lit && !on;
    pen.globalAlpha = dim ? 0.25 : 1;
    const client = this.store.marks.get("lane:" + mark.source)?.role === "client";
    const colour = mark.fate ? c.bad : mark.wire ? c.wire : client ? c.message : c.back;
    if (lost) {
      x1 = x0 + (x1 - x0) * 0.55;
      y1 = y0 + (y1 - y0) * 0.55;
    }
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = on ? 3 : mark.wire ? 1 : 1.6;
    pen.setLineDash(mark.wire ? [5, 3] : mark.fate && !lost ? [8, 3] : []);
    pen.beginPath();
    if (x0 === x1) {
      pen.moveTo(x0, y0);
      pen.bezierCurveTo(x0 + 34, y0, x0 + 34, y1 + 6, x0 + 2, y1 + 6);
    } else {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    pen.stroke();
    pen.setLineDash([]);
    if (lost) this.cross(x1, y1, on ? 6 : 4.5);
    else if (!dense || on) this.arrowHead(x0, y0, x1, x0 === x1 ? y1 + 6 : y1, mark.wire ? 5 : 7);
    this.hits.push([mark, x0, y0, x1, y1]);
    if (!dense || on) {
      const text = mark.text + (mark.fate ? "  " + fateOf(mark) : "");
      const most = Math.max(60, Math.abs(x1 - x0) * (lost ? 1.7 : 1) - 22);
      const x = Math.min(x0, x0 === x1 ? x0 : lost ? x0 + (x1 - x0) / 0.55 : x1) + 12;
      this.label(text, x + (x0 === x1 ? 26 : 0), (y0 + y1) / 2 - 4, { colour: mark.fate ? c.bad : mark.wire ? c.wire : c.ink, most, bold: on });
    }
    pen.lineWidth = 1;
    pen.globalAlpha = 1;
  }

  arrowHead(x0, y0, x1, y1, size) {
    const pen = this.pen;
    const angle = x0 === x1 ? Math.PI : Math.atan2(y1 - y0, x1 - x0);
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x1 - size * Math.cos(angle - 0.42), y1 - size * Math.sin(angle - 0.42));
    pen.lineTo(x1 - size * Math.cos(angle + 0.42), y1 - size * Math.sin(angle + 0.42));
    pen.closePath();
    pen.fill();
  }

  cross(x, y, size) {
    const pen = this.pen;
    pen.lineWidth = 2.4;
    pen.beginPath();
    pen.moveTo(x - size, y - size);
    pen.lineTo(x + size, y + size);
    pen.moveTo(x + size, y - size);
    pen.lineTo(x - size, y + size);
    pen.stroke();
  }

  paintPoint(mark, dense) {
    const { pen, c } = this;
    const x = this.x(this.store.place(mark.lane));
    const y = this.y(mark.at);
    const on = mark === this.selected || mark === this.hovered;
    const dim = this.lit && mark.step !== this.lit && !on;
    pen.globalAlpha = dim ? 0.25 : 1;
    pen.fillStyle = mark.bad ? c.bad : mark.what === "log" ? c.faint : c.accent;
    pen.beginPath();
    if (mark.bad) {
      pen.moveTo(x, y - 6);
      pen.lineTo(x + 6, y + 5);
      pen.lineTo(x - 6, y + 5);
    } else if (mark.what === "log") pen.rect(x - 3, y - 3, 6, 6);
    else pen.arc(x, y, on ? 6 : 4, 0, 7);
    pen.fill();
    this.hits.push([mark, x - 4, y, x + Math.min(120, this.gap() - 8), y]);
    if (!dense || on) {
      const last = this.store.place(mark.lane) === this.store.inView().length - 1;
      const most = last ? this.width - x - 16 : this.gap() - 14;
      this.label(mark.text, x + 9, y + 4, { colour: mark.bad ? c.bad : c.faint, most, small: true, bold: on, wide: on });
    }
    pen.globalAlpha = 1;
  }

  label(text, x, y, { colour, most, small = false, bold = false, wide = false, right = false }) {
    const { pen, c } = this;
    if (y < HEAD - 4 || y > this.tall + 20) return;
    pen.font = `${bold ? "600 " : ""}${small ? 11 : 12}px ${c.font}`;
    let shown = text.length > 160 ? text.slice(0, 160) + "…" : text;
    if (!wide) {
      const each = small ? 6.1 : 6.7;
      let fits = Math.floor(most / each);
      if (shown.length > fits) {
        while (fits < shown.length && pen.measureText(shown.slice(0, fits + 4)).width < most) fits += 4;
        if (fits < shown.length) shown = fits < 4 ? "" : shown.slice(0, fits - 1) + "…";
      }
    }
    if (!shown) return;
    pen.textAlign = right ? "right" : "left";
    pen.lineWidth = 3;
    pen.strokeStyle = c.paper;
    pen.lineJoin = "round";
    pen.strokeText(shown, x, y);
    pen.fillStyle = colour;
    pen.fillText(shown, x, y);
    pen.lineWidth = 1;
    pen.textAlign = "left";
  }

  paintAxis(from, to) {
    const { pen, c, store } = this;
    pen.fillStyle = c.paper;
    pen.fillRect(0, HEAD, AXIS, this.tall);
    let last = -100;
    for (let i = 0; i < store.times.length; i++) {
      const t = store.times[i];
      if (t < from) continue;
      if (t > to) break;
      const y = this.y(t);
      if (y - last < 24) continue;
      last = y;
      this.label(seconds(t), 8, y + 4, { colour: c.faint, most: AXIS - 10, small: true });
      pen.fillStyle = c.faint;
      pen.fillRect(AXIS - 6, y, 6, 1);
    }
  }

  paintHeads() {
    const { pen, c, store } = this;
    pen.fillStyle = c.panel;
    pen.fillRect(0, 0, this.width, HEAD);
    const gap = this.gap();
    for (const lane of store.inView()) {
      const x = this.x(store.position.get(lane.name));
      pen.font = `600 13px ${c.font}`;
      pen.fillStyle = c.ink;
      pen.textAlign = "center";
      let [title, below] = lane.role === "worker" ? lane.title.split("'s ") : [lane.title, lane.address];
      while (title.length > 4 && pen.measureText(title).width > gap - 8) title = title.slice(0, -2).trimEnd() + "…";
      pen.fillText(lane.role === "worker" && below ? title + "'s" : title, x, 19);
      pen.font = `11px ${c.font}`;
      pen.fillStyle = c.faint;
      if (gap > 80 || lane.role === "worker") pen.fillText(below || "", x, 35);
      pen.textAlign = "left";
    }
    pen.fillStyle = c.faint;
    pen.fillRect(0, HEAD, this.width, 1);
  }

  // All of the drawing on as many canvases of this size as it takes, or so many: for paper.
  pages(width, tall, most) {
    const { pen, zoom, top, left, follow, ratio, hits } = this;
    const window = { pen, zoom, top, left, follow, ratio, hits, width: this.width, tall: this.tall };
    Object.assign(this, { zoom: 1, left: 0, follow: false, ratio: 2, width: Math.max(width, AXIS + 30 + 90 * this.store.inView().length) });
    const { whole } = this;
    const made = [];
    for (let at = 0; at < whole - HEAD && made.length < most; at += tall - HEAD - 14) {
      const canvas = document.createElement("canvas");
      this.top = at;
      this.tall = Math.min(tall, whole - at);
      canvas.width = this.width * this.ratio;
      canvas.height = this.tall * this.ratio;
      this.pen = canvas.getContext("2d");
      this.paint();
      made.push(canvas);
    }
    Object.assign(this, window);
    return made;
  }

  // What is under a point of the window.
  under(x, y) {
    if (y < HEAD) return null;
    let best = null;
    let near = 9;
    for (const [mark, x0, y0, x1, y1] of this.hits || []) {
      if (Math.min(y0, y1) - 10 > y || Math.max(y0, y1) + 10 < y) continue;
      const dx = x1 - x0;
      const dy = y1 - y0;
      const along = Math.max(0, Math.min(1, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
      const far = Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
      if (far < near) [near, best] = [far, mark];
    }
    return best;
  }

  select(mark, by = "") {
    this.selected = mark;
    this.on.select?.(mark, by);
    this.draw();
  }

  // Into the window with it.
  show(mark) {
    if (!mark) return;
    const y = this.store.y(timeOf(mark)) * this.zoom;
    if (y < this.top + 40 || y > this.top + this.tall - HEAD - 80) this.top = y - (this.tall - HEAD) / 3;
    const place = this.store.place(mark.lane ?? mark.source);
    if (place !== undefined && (this.x(place) < AXIS || this.x(place) > this.width)) this.left += this.x(place) - this.width / 2;
    this.follow = false;
    this.draw();
  }

  move(direction) {
    const rows = this.store.rows;
    if (!rows.length) return;
    let at = this.selected ? rows.indexOf(this.selected) : -1;
    if (direction === "first") at = 0;
    else if (direction === "last") at = rows.length - 1;
    else at = Math.max(0, Math.min(rows.length - 1, at + direction));
    this.select(rows[at], "keyboard");
    this.show(rows[at]);
  }

  // Zoom by a factor, with the moment under `y` staying where it is.
  scaleBy(factor, y = this.tall / 2) {
    const t = (this.top + y - HEAD) / this.zoom;
    const least = Math.min(1, (this.tall - HEAD - 40) / Math.max(this.store.height, 1));
    this.zoom = Math.max(least, Math.min(this.store.evenly ? 6 : 4000, this.zoom * factor));
    this.top = t * this.zoom - y + HEAD;
    this.follow = false;
    this.draw();
  }

  fit() {
    this.zoom = (this.tall - HEAD - 40) / Math.max(this.store.height, 1);
    if (this.zoom > 1) this.zoom = 1;
    this.top = this.left = 0;
    this.draw();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener(
      "wheel",
      (event) => {
        const unit = event.deltaMode === 1 ? 16 : 1;
        if (event.ctrlKey || event.metaKey) {
          event.preventDefault();
          this.scaleBy(Math.exp(-event.deltaY * unit * 0.004), event.offsetY);
          return;
        }
        const { top, left } = this;
        this.top += (event.shiftKey ? 0 : event.deltaY) * unit;
        this.left += (event.shiftKey ? event.deltaY : event.deltaX) * unit;
        this.bounds();
        if (this.top === top && this.left === left) return; // at its end what is around it scrolls
        event.preventDefault();
        this.follow = false;
        this.draw();
      },
      { passive: false },
    );
    const fingers = new Map();
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) {
        const mark = this.under(event.offsetX, event.offsetY);
        if (mark !== this.hovered) {
          this.hovered = mark;
          this.on.hover?.(mark);
          canvas.style.cursor = mark ? "pointer" : "grab";
          this.draw();
        }
        return;
      }
      if (fingers.size === 2) {
        const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
        const apart = (a, b) => Math.hypot(a.offsetX - b.offsetX, a.offsetY - b.offsetY) || 1;
        this.scaleBy(apart(event, other) / apart(before, other), (event.offsetY + other.offsetY) / 2);
      } else {
        this.top -= event.offsetY - before.offsetY;
        this.left -= event.offsetX - before.offsetX;
        this.follow = false;
        this.draw();
      }
      moved += Math.abs(event.offsetX - before.offsetX) + Math.abs(event.offsetY - before.offsetY);
      fingers.set(event.pointerId, event);
    });
    const up = (event) => {
      const was = fingers.delete(event.pointerId);
      if (was && event.type === "pointerup" && moved < 5) {
        const mark = this.under(event.offsetX, event.offsetY);
        this.select(mark, "pointer");
      }
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => {
      if (this.hovered) {
        this.hovered = null;
        this.on.hover?.(null);
        this.draw();
      }
    });
  }
}
