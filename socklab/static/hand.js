"use strict";
// Playing by hand: the lab as a map on which links and nodes can be chosen, what can be done to them, and a line for any step.
// All of it becomes steps of the scenario language, so that what is done here can be read, learnt and kept.

const SVG = "http://www.w3.org/2000/svg";
const FAULTS = {
  delay: ["100ms", "how late packets are, like 100ms"],
  loss: ["20%", "how many packets are lost, like 20%"],
  rate: ["50kbit", "how much passes, like 50kbit"],
  duplicate: ["20%", "how many packets come twice, like 20%"],
  reorder: ["20%", "how many packets are overtaken, like 20%"],
  corrupt: ["5%", "how many packets are damaged, like 5%"],
};
const CLIENT = {
  connect: "connect",
  "half-close": "half-close",
  close: "close",
  abort: "abort (RST)",
  stall: "stop reading",
  read: "read again",
  unplug: "unplug",
  plug: "plug in",
};
const SERVER = { pause: "pause", continue: "continue", kill: "kill", stop: "stop", restart: "restart", unplug: "unplug", plug: "plug in" };

function drawn(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

// A text as it stands in a step: quoted, and its braces stand for themselves.
function quoted(text) {
  return JSON.stringify(text.replaceAll("{", "{{").replaceAll("}", "}}"));
}

class Hand {
  constructor(page) {
    this.page = page;
    this.chosen = null; // id of a lane, or of a link: "a\nb"
    this.history = [];
    this.at = 0;
    this.panel = by("hand");
    this.panel.hidden = false;
    by("type").addEventListener("submit", (event) => this.typed(event));
    by("step").addEventListener("keydown", (event) => this.recalled(event));
    by("next").addEventListener("click", () => this.next());
    for (const what of ["break", "end"]) by(what).addEventListener("click", () => this.post(what).catch(() => this.tell(GONE)));
    by("verdict").textContent = "by hand";
    by("save").href = location.pathname + "/scenario.yaml";
    this.rest();
    this.verbs();
  }

  async verbs() {
    const verbs = await (await fetch("/verbs")).json();
    by("verbs").append(...verbs.map((verb) => Object.assign(element("option"), { value: verb + ": " })));
  }

  async post(what, body = {}) {
    const answer = await fetch(`${location.pathname}/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return [answer.ok, await answer.json()];
  }

  // Do a step. What is wrong stands below the line until the next.
  async does(text, how = "step") {
    this.tell("");
    by("break").hidden = false;
    this.pending = (this.pending ?? 0) + 1;
    try {
      const [ok, answer] = await this.post("steps", { [how]: text });
      if (!ok) this.tell(answer.error);
      else if (answer.failure) this.tell(answer.failure.join("\n"));
      return ok;
    } catch {
      this.tell(GONE);
      return false;
    } finally {
      this.pending -= 1;
      by("break").hidden = this.pending === 0;
    }
  }

  tell(text) {
    by("told").textContent = text;
    by("told").hidden = !text;
  }

  async typed(event) {
    event.preventDefault();
    const box = by("step");
    const text = box.value.trim();
    if (!text) return;
    this.history.push(text);
    this.at = this.history.length;
    box.value = "";
    if (!(await this.does(text)) && !box.value) box.value = text;
  }

  recalled(event) {
    const way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!way || !this.history.length) return;
    this.at = Math.max(0, Math.min(this.history.length, this.at + way));
    event.target.value = this.history[this.at] ?? "";
    event.preventDefault();
  }

  // The scenario's own steps, one by one.
  async rest() {
    const answer = await fetch(location.pathname + "/rest");
    this.left = answer.ok ? await answer.json() : [];
    by("following").hidden = !this.left.length;
    by("following-step").textContent = this.left[0] ?? "";
  }

  async next() {
    by("next").disabled = true;
    await this.does(this.left[0], "next");
    await this.rest();
    by("next").disabled = false;
  }

  // ── the map ──

  refresh() {
    const { store } = this.page;
    const nodes = store.lanes.filter((lane) => lane.role !== "worker" && lane.networks.length);
    const known = JSON.stringify([nodes, store.bands.filter((band) => band.end === null), store.lives.map((life) => [life.lane, life.end === null]), this.chosen, theme.now]);
    if (known === this.known) return;
    this.known = known;
    const focused = document.activeElement?.dataset?.id;
    this.map(nodes);
    if (focused) [...by("map").querySelectorAll("[data-id]")].find((each) => each.dataset.id === focused)?.focus();
    this.actions();
  }

  map(nodes) {
    const svg = by("map");
    svg.replaceChildren();
    const servers = nodes.filter((node) => node.role === "server");
    const clients = nodes.filter((node) => node.role === "client");
    const tall = Math.max(servers.length, clients.length) * 52;
    svg.setAttribute("viewBox", `0 0 340 ${tall}`);
    this.places = new Map();
    clients.forEach((node, i) => this.places.set(node.name, [64, (tall / clients.length) * (i + 0.5)]));
    servers.forEach((node, i) => this.places.set(node.name, [276, (tall / servers.length) * (i + 0.5)]));
    for (const client of clients) {
      for (const server of servers) {
        if (client.networks.some((network) => server.networks.includes(network))) this.link(svg, client.name, server.name);
      }
    }
    for (const node of nodes) this.node(svg, node);
  }

  // What is wrong with a link, each way.
  faults(a, b) {
    const there = [];
    for (const band of this.page.store.bands) {
      if (band.end !== null) continue;
      if (band.source === a && band.target === b) there.push(["→", band.text]);
      if (band.source === b && band.target === a) there.push(["←", band.text]);
    }
    if (there.length === 2 && there[0][1] === there[1][1]) return there[0][1];
    return there.map(([way, text]) => `${way} ${text}`).join(", ");
  }

  link(svg, a, b) {
    const [x0, y0] = this.places.get(a);
    const [x1, y1] = this.places.get(b);
    const told = this.faults(a, b);
    const connected = this.page.store.lives.some((life) => life.number && life.lane === a && life.end === null);
    const group = this.choosable(svg, `${a}\n${b}`, `link ${a} to ${b}: ${told || "whole"}`);
    const far = Math.hypot(x1 - x0, y1 - y0);
    const [dx, dy] = [((y0 - y1) / far) * 11, ((x1 - x0) / far) * 11]; // a line is too thin for a finger
    const corners = [[x0 - dx, y0 - dy], [x0 + dx, y0 + dy], [x1 + dx, y1 + dy], [x1 - dx, y1 - dy]];
    drawn("polygon", { points: corners.join(" "), class: "wide" }, group);
    drawn("line", { x1: x0, y1: y0, x2: x1, y2: y1, class: (told ? "faulty" : connected ? "connected" : "whole") + " line" }, group);
    if (told) {
      const text = drawn("text", { x: (x0 * 2 + x1) / 3 + 12, y: (y0 * 2 + y1) / 3 - 6, class: "told" }, group);
      text.textContent = told.length > 26 ? told.slice(0, 25) + "…" : told;
    }
  }

  node(svg, node) {
    const [x, y] = this.places.get(node.name);
    const state = node.role === "server" || node.state === "unplugged" ? node.state : this.connected(node.name);
    const group = this.choosable(svg, node.id, `${node.role} ${node.title}${state ? ", " + state : ""}`);
    group.classList.add(state.replace(" ", "-") || "unknown");
    drawn("rect", { x: x - 58, y: y - 18, width: 116, height: 36, rx: node.role === "server" ? 3 : 18 }, group);
    drawn("text", { x, y: y - 2, class: "name" }, group).textContent = node.title.length > 17 ? node.title.slice(0, 16) + "…" : node.title;
    drawn("text", { x, y: y + 12, class: "state" }, group).textContent = state || node.address;
  }

  connected(name) {
    const lives = this.page.store.lives.filter((life) => life.number && life.lane === name);
    if (!lives.length) return "";
    const last = lives[lives.length - 1];
    return last.end === null ? "connected" : last.how || "closed";
  }

  choosable(svg, id, label) {
    const group = drawn("g", { role: "button", tabindex: "0", "aria-label": label, "aria-pressed": String(this.chosen === id) }, svg);
    group.dataset.id = id;
    const choose = () => {
      this.chosen = this.chosen === id ? null : id;
      this.refresh();
    };
    group.addEventListener("click", choose);
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    });
    return group;
  }

  // ── what can be done to what is chosen ──

  actions() {
    const box = by("actions");
    if (this.acted === this.chosen) return; // what is typed there stays
    this.acted = this.chosen;
    box.replaceChildren();
    if (this.chosen === null) {
      box.append(element("p", "Choose a link or a node on the map.", "facts"));
      return;
    }
    const lane = this.page.store.marks.get(this.chosen);
    if (!lane) this.linkActions(box, ...this.chosen.split("\n"));
    else if (lane.role === "server") this.nodeActions(box, lane, SERVER);
    else this.clientActions(box, lane);
  }

  button(parent, label, step) {
    const made = element("button", label);
    made.type = "button";
    made.addEventListener("click", () => this.does(step()));
    parent.append(made);
    return made;
  }

  linkActions(box, a, b) {
    box.append(element("h3", `${a} — ${b}`));
    const way = element("select");
    way.setAttribute("aria-label", "which way");
    for (const [value, text] of [["between", "both ways"], ["to", `${a} → ${b}`], ["from", `${b} → ${a}`]]) way.append(Object.assign(element("option", text), { value }));
    const link = (more = "") => {
      if (way.value === "between") return `{between: [${a}, ${b}]${more}}`;
      return way.value === "to" ? `{from: ${a}, to: ${b}${more}}` : `{from: ${b}, to: ${a}${more}}`;
    };
    const first = element("div", undefined, "row");
    first.append(way);
    this.button(first, "cut", () => `cut: ${link()}`);
    this.button(first, "reject", () => `reject: ${link()}`);
    this.button(first, "heal", () => `heal: ${link()}`);
    const second = element("form", undefined, "row");
    const fault = element("select");
    fault.setAttribute("aria-label", "which fault");
    for (const name of Object.keys(FAULTS)) fault.append(element("option", name));
    const amount = element("input");
    amount.size = 8;
    const choose = () => {
      amount.value = FAULTS[fault.value][0];
      amount.setAttribute("aria-label", FAULTS[fault.value][1]);
      amount.title = FAULTS[fault.value][1];
    };
    fault.addEventListener("change", choose);
    choose();
    second.append(fault, amount, Object.assign(element("button", "put"), { type: "submit" }));
    second.addEventListener("submit", (event) => {
      event.preventDefault();
      this.does(`${fault.value}: ${link(`, is: ${amount.value.trim()}`)}`);
    });
    box.append(first, second);
  }

  nodeActions(box, lane, verbs) {
    box.append(element("h3", lane.title));
    const row = element("div", undefined, "row");
    for (const [verb, label] of Object.entries(verbs)) this.button(row, label, () => `${verb}: ${lane.name}`);
    box.append(row);
  }

  // One types as this client.
  clientActions(box, lane) {
    this.nodeActions(box, lane, CLIENT);
    const form = element("form", undefined, "row");
    const text = element("input");
    text.setAttribute("aria-label", `what ${lane.name} sends`);
    text.placeholder = `say something as ${lane.name}`;
    text.autocomplete = "off";
    form.append(text, Object.assign(element("button", "send"), { type: "submit" }));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const said = text.value;
      text.value = "";
      if (!(await this.does(`send: {${lane.name}: ${quoted(said)}}`)) && !text.value) text.value = said;
    });
    box.append(form);
    text.focus();
  }

  ended() {
    for (const id of ["type", "actions", "following", "end", "break"]) by(id).hidden = true;
    this.tell("");
    by("over").hidden = false;
  }
}
