"use strict";
// Around the drawing: the scenario, what is selected, the list of events, filters, keys. The same for a report and for the live page.

const LINE = 22; // pixels of a row in the list of events, as page.css has it
const PAPER = [1050, 700, 40]; // width and height in pixels of what is printed on a page, and how many of these at most

class Page {
  constructor() {
    this.store = new Store();
    this.diagram = new Diagram(by("canvas"), this.store, {
      select: (mark, how) => this.selected(mark, how),
      hover: (mark) => this.hovered(mark),
    });
    this.lines = new Map(); // line of the scenario → its element
    this.controls();
    this.keys();
    by("events").addEventListener("scroll", () => this.list());
    new ResizeObserver(() => this.list()).observe(by("events"));
    by("legend").open = innerWidth > 760; // on a phone it would stand before the drawing
    addEventListener("beforeprint", () => this.print());
    addEventListener("afterprint", () => this.printed());
  }

  // On paper stands the whole drawing, in its light colours.
  print() {
    this.dark = theme.now === "dark";
    document.documentElement.dataset.theme = "light";
    by("printed").replaceChildren(...this.diagram.pages(...PAPER));
  }

  printed() {
    by("printed").replaceChildren();
    if (this.dark) theme.show("dark");
  }

  apply(marks) {
    this.store.apply(marks);
    if (this.store.play && this.store.play.text !== this.text) this.begun();
    this.refresh();
  }

  // It is played again, from the beginning.
  reset() {
    this.store.clear();
    this.text = undefined;
    this.told = false;
    this.laneNames = undefined;
    this.diagram.selected = this.diagram.hovered = null;
    this.diagram.lit = this.kept = "";
    by("verdict").textContent = "running";
    by("verdict").className = "verdict running";
    by("why").hidden = by("packets").hidden = true;
    by("why").replaceChildren();
    by("counted").replaceChildren();
  }

  refresh() {
    this.progress();
    this.lanes();
    by("workers").setAttribute("aria-pressed", String(this.store.workers));
    by("workers").hidden = !this.store.lanes.some((lane) => lane.role === "worker");
    this.list();
    const { rows } = this.store;
    by("count").textContent = rows.length === 1 ? "1 event" : `${rows.length.toLocaleString("en")} events`;
    this.diagram.draw();
  }

  begun() {
    const play = this.store.play;
    this.text = play.text; // it grows where a person plays by hand
    document.title = `${play.title} · socklab`;
    by("title").textContent = play.title;
    by("facts").textContent = `${play.service} on ${play.backend}`;
    const list = by("scenario");
    list.replaceChildren();
    this.lines.clear();
    play.text
      .replace(/\n$/, "")
      .split("\n")
      .forEach((text, i) => {
        const item = element("li");
        item.append(element("span", String(i + 1), "number"));
        item.append(element("span", text));
        this.lines.set(i + 1, item);
        list.append(item);
      });
  }

  // The state of each step at its line, and the verdict.
  progress() {
    for (const step of this.store.steps) {
      const item = this.lines.get(step.line);
      if (!item) continue;
      item.classList.remove("done", "running", "failed");
      item.classList.add({ begin: "running", end: "done" }[step.phase] ?? "failed");
      if (item.querySelector("button")) continue;
      const text = item.lastChild;
      const button = element("button", text.textContent);
      button.title = "what this step caused";
      button.addEventListener("click", () => this.light(this.lastAt(step.line), true));
      button.addEventListener("mouseenter", () => this.light(this.lastAt(step.line)));
      button.addEventListener("mouseleave", () => this.light(this.kept));
      button.addEventListener("focus", () => this.light(this.lastAt(step.line)));
      text.replaceWith(button);
    }
    const { verdict } = this.store;
    if (!verdict || this.told) return;
    this.told = true;
    const badge = by("verdict");
    badge.textContent = verdict.verdict;
    badge.className = "verdict " + verdict.verdict;
    if (verdict.verdict !== "pass") this.why(verdict);
    if (this.store.counted) {
      by("packets").hidden = false;
      by("counted").append(...this.store.counted.texts.map((text) => element("li", text)));
    }
  }

  why(verdict) {
    const box = by("why");
    box.hidden = false;
    box.className = "why";
    const list = element("dl");
    const say = (name, text, classes) => {
      if (!text) return;
      list.append(element("dt", name), element("dd", text, classes));
    };
    say("likely cause", verdict.cause, "cause");
    say("expected", verdict.expected);
    say("got", verdict.got);
    if (!verdict.expected) say(verdict.verdict === "skip" ? "skipped" : "what happened", verdict.reason);
    const failed = this.store.failedStep();
    if (failed) say("at line " + failed.line, failed.text);
    box.append(list);
    if (failed) {
      const button = element("button", "show where");
      button.addEventListener("click", () => this.toFailure());
      box.append(button);
    }
  }

  toFailure() {
    const failed = this.store.failedStep();
    if (!failed) return;
    this.kept = this.diagram.lit = "";
    const before = this.store.rows.filter((mark) => timeOf(mark) <= (failed.end ?? this.store.end));
    const expected = this.store.verdict?.expected || "";
    const concerned = before.filter((mark) => mark.mark === "arrow" && !mark.wire && expected.includes(mark.target + ":"));
    const last = concerned.pop() ?? before.pop();
    this.diagram.select(last ?? null, "keyboard");
    this.diagram.show(last);
    this.litLine(failed);
  }

  // The line of this step alone is lit; of none without one.
  litLine(step) {
    for (const item of this.lines.values()) item.classList.remove("lit");
    const item = step && this.lines.get(step.line);
    item?.classList.add("lit");
    return item;
  }

  // Of a step that is played several times, the last.
  lastAt(line) {
    const there = this.store.steps.filter((step) => step.line === line);
    return there.length ? there[there.length - 1].id : "";
  }

  light(id, keep = false) {
    if (keep) this.kept = this.kept === id ? "" : id;
    this.diagram.lit = id || this.kept || "";
    const step = this.store.marks.get(this.diagram.lit);
    this.litLine(step);
    if (step && keep && this.kept) {
      const first = this.store.rows.find((mark) => mark.step === step.id) ?? this.store.rows.find((mark) => timeOf(mark) >= step.start);
      this.diagram.show(first);
    }
    this.diagram.draw();
  }

  hovered(mark) {
    this.litLine((mark && this.store.marks.get(mark.step)) || this.store.marks.get(this.diagram.lit));
    if (!this.diagram.selected) by("detail").textContent = mark ? this.told_of(mark) : "nothing selected";
  }

  told_of(mark) {
    const at = seconds(timeOf(mark), 6);
    const step = this.store.marks.get(mark.step);
    const where = step ? `\nduring line ${step.line}: ${step.text}` : "";
    const { store } = this;
    if (mark.mark === "point") return `${at}  ${store.called(mark.lane)}  ${mark.what}: ${mark.text}${where}`;
    const took = mark.start != null && mark.end != null && mark.end > mark.start ? `, under way for ${span(mark.end - mark.start)}` : "";
    const size = mark.size ? `, ${mark.size} bytes` : "";
    const fate = mark.fate && ", " + fateOf(mark);
    const states = store.statesAt(store.host(mark.source), store.host(mark.target), timeOf(mark));
    const sockets = states.length ? `\nsockets then: ${states.join(", ")}` : "";
    return `${at}  ${store.called(mark.source)} → ${store.called(mark.target)}  ${mark.what}${size}${fate}${took}\n${mark.text}${where}${sockets}`;
  }

  selected(mark, how) {
    by("detail").textContent = mark ? this.told_of(mark) : "nothing selected";
    this.litLine(mark && this.store.marks.get(mark.step))?.scrollIntoView({ block: "nearest" });
    if (mark && how !== "list") {
      const box = by("events");
      const at = this.store.rows.indexOf(mark) * LINE;
      if (at < box.scrollTop || at > box.scrollTop + box.clientHeight - LINE) box.scrollTop = at - box.clientHeight / 2;
    }
    if (mark && how) this.remember(mark);
    this.list();
  }

  remember(mark) {
    history.replaceState(null, "", "#" + mark.id);
  }

  recall() {
    const mark = this.store.marks.get(decodeURIComponent(location.hash.slice(1)));
    if (!mark || (mark.mark !== "arrow" && mark.mark !== "point")) return false;
    this.diagram.select(mark, "link");
    this.diagram.show(mark);
    return true;
  }

  // Only the rows of the list that are in view are in the page.
  list() {
    const box = by("events");
    const all = by("all");
    const { rows } = this.store;
    all.style.height = rows.length * LINE + "px";
    if (this.diagram.follow) box.scrollTop = box.scrollHeight;
    const first = Math.max(0, Math.floor(box.scrollTop / LINE) - 4);
    const last = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / LINE) + 4);
    const made = [];
    for (let i = first; i < last; i++) {
      const mark = rows[i];
      const row = element("div");
      row.setAttribute("role", "option");
      row.id = "row-" + mark.id;
      row.style.top = i * LINE + "px";
      row.setAttribute("aria-posinset", String(i + 1));
      row.setAttribute("aria-setsize", String(rows.length));
      row.setAttribute("aria-selected", String(mark === this.diagram.selected));
      const fate = mark.fate ? "  " + fateOf(mark) : "";
      row.append(
        element("span", seconds(timeOf(mark)), "at"),
        element("span", mark.mark === "arrow" ? `${this.store.called(mark.source)} → ${this.store.called(mark.target)}` : this.store.called(mark.lane), "who"),
        element("span", mark.text.slice(0, 300) + fate, mark.fate || mark.bad ? "bad" : ""),
      );
      row.addEventListener("click", () => {
        this.diagram.select(mark, "list");
        this.diagram.show(mark);
      });
      made.push(row);
    }
    all.replaceChildren(...made);
    const chosen = this.diagram.selected && by("row-" + this.diagram.selected.id);
    if (chosen) box.setAttribute("aria-activedescendant", chosen.id);
    else box.removeAttribute("aria-activedescendant");
  }

  lanes() {
    const names = this.store.lanes.filter((lane) => lane.role !== "worker").map((lane) => lane.name);
    if (names.join("\n") === this.laneNames) return;
    this.laneNames = names.join("\n");
    by("nodes").replaceChildren(
      ...names.map((name) => {
        const label = element("label");
        const box = element("input");
        box.type = "checkbox";
        box.checked = !this.store.hidden.has(name);
        box.addEventListener("change", () => {
          if (box.checked) this.store.hidden.delete(name);
          else this.store.hidden.add(name);
          this.store.arrange();
          this.refresh();
        });
        label.append(box, " " + name + " ");
        return label;
      }),
    );
  }

  controls() {
    const { store, diagram } = this;
    for (const [kind, name] of Object.entries(KINDS)) {
      const label = element("label");
      const box = element("input");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => {
        if (box.checked) store.kinds.add(kind);
        else store.kinds.delete(kind);
        store.arrange();
        this.refresh();
      });
      label.append(box, " " + name + " ");
      by("kinds").append(label);
    }
    by("search").addEventListener("input", () => {
      store.search = by("search").value;
      store.arrange();
      this.refresh();
    });
    const press = (id, does) => by(id).addEventListener("click", does);
    press("fit", () => diagram.fit());
    press("in", () => diagram.scaleBy(1.4));
    press("out", () => diagram.scaleBy(1 / 1.4));
    press("even", () => this.toggle("even", "evenly"));
    press("workers", () => this.toggle("workers", "workers"));
    press("link", () => this.copy());
    theme.begin(() => diagram.draw());
  }

  toggle(id, what) {
    const { store, diagram } = this;
    const middle = store.t((diagram.top + diagram.tall / 3) / diagram.zoom);
    store[what] = !store[what];
    by(id).setAttribute("aria-pressed", String(store[what]));
    store.arrange();
    if (what === "evenly") diagram.zoom = 1;
    diagram.top = store.y(middle) * diagram.zoom - diagram.tall / 3;
    this.refresh();
  }

  async copy() {
    const link = location.href;
    try {
      await navigator.clipboard.writeText(link);
      by("detail").textContent = "copied: " + link;
    } catch {
      by("detail").textContent = link;
    }
  }

  keys() {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.closest("input, textarea, select");
      if (typing && event.key !== "Escape") return;
      const { diagram } = this;
      const does = {
        ArrowDown: () => diagram.move(1),
        j: () => diagram.move(1),
        ArrowUp: () => diagram.move(-1),
        k: () => diagram.move(-1),
        PageDown: () => diagram.move(20),
        PageUp: () => diagram.move(-20),
        Home: () => diagram.move("first"),
        End: () => diagram.move("last"),
        "+": () => diagram.scaleBy(1.4),
        "=": () => diagram.scaleBy(1.4),
        "-": () => diagram.scaleBy(1 / 1.4),
        0: () => diagram.fit(),
        t: () => this.toggle("even", "evenly"),
        w: () => this.toggle("workers", "workers"),
        c: () => this.copy(),
        d: () => by("theme").click(),
        f: () => this.toFailure(),
        "/": () => by("search").focus(),
        "]": () => this.nextStep(1),
        "[": () => this.nextStep(-1),
        Escape: () => {
          if (typing) event.target.blur();
          this.kept = "";
          diagram.lit = "";
          diagram.select(null);
        },
      }[event.key];
      if (!does) return;
      does();
      event.preventDefault();
    });
  }

  nextStep(direction) {
    const { steps } = this.store;
    if (!steps.length) return;
    const at = steps.findIndex((step) => step.id === this.diagram.lit);
    const next = steps[Math.max(0, Math.min(steps.length - 1, at < 0 ? 0 : at + direction))];
    this.kept = "";
    this.light(next.id, true);
    by("detail").textContent = `line ${next.line}: ${next.text} (${next.phase === "failed" ? "failed" : next.phase === "end" ? "done" : "goes on"})`;
  }
}
