"use strict";
// The list of scenarios, with what came of each.

theme.begin();

const rows = new Map(); // path and label → what stands in the list

async function begin(what) {
  try {
    const answer = await fetch("/plays", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what) });
    const begun = await answer.json();
    by("facts").textContent = begun.error ?? "";
    return begun.id;
  } catch {
    by("facts").textContent = GONE;
  }
}

async function open(what) {
  const id = await begin(what);
  if (id) location.href = "/plays/" + id;
}

// The text of a scenario, when somebody wants to read it.
async function read(words, id) {
  if (words.querySelector("pre")) return;
  try {
    const answer = await fetch("/scenarios/" + id);
    if (!words.querySelector("pre")) words.append(element("pre", await answer.text()));
  } catch {
    by("facts").textContent = GONE;
  }
}

function shown() {
  const wanted = by("search").value.toLowerCase();
  let count = 0;
  for (const row of rows.values()) {
    row.item.hidden = !row.text.includes(wanted);
    count += !row.item.hidden;
  }
  for (const part of document.querySelectorAll("#scenarios section")) part.hidden = !part.querySelector("li:not([hidden])");
  by("count").textContent = count === 1 ? "1 play" : `${count} plays`;
}

fetch("/scenarios")
  .then((answer) => answer.json())
  .then((scenarios) => {
    const folders = new Map();
    for (const scenario of scenarios) {
      if (!folders.has(scenario.folder)) {
        const part = element("section");
        part.append(element("h2", scenario.folder), element("ul"));
        by("scenarios").append(part);
        folders.set(scenario.folder, part.querySelector("ul"));
      }
      const item = element("li");
      const button = element("button", "Play");
      button.setAttribute("aria-label", `play ${scenario.title}, ${scenario.service}`);
      button.addEventListener("click", () => open({ scenario: scenario.id }));
      const hand = element("button", "By hand");
      hand.title = "step by step, and what you like between";
      hand.setAttribute("aria-label", `play ${scenario.title}, ${scenario.service}, by hand`);
      hand.addEventListener("click", () => open({ scenario: scenario.id, by_hand: true }));
      const verdict = element("a", "", "verdict skip");
      verdict.hidden = true;
      const words = element("details");
      const title = element("summary", scenario.title);
      title.append(element("span", " " + scenario.label, "facts"));
      words.append(title);
      words.addEventListener("toggle", () => read(words, scenario.id));
      item.append(button, hand, words, verdict, element("span", "", "facts reason"));
      folders.get(scenario.folder).append(item);
      rows.set(`${scenario.path}\n${scenario.service}\n${scenario.label}`, {
        item,
        id: scenario.id,
        text: `${scenario.title} ${scenario.path} ${scenario.service} ${scenario.about}`.toLowerCase(),
      });
    }
    shown();
    watch();
    document.documentElement.dataset.ready = "yes";
  });

fetch("/services")
  .then((answer) => answer.json())
  .then((services) => {
    by("services").hidden = !services.length;
    for (const service of services) {
      const button = element("button", service.name);
      button.title = `${service.contract ?? "a protocol of its own"} over ${service.protocol.toUpperCase()}`;
      button.addEventListener("click", () => open({ service: service.name }));
      by("services").querySelector("div").append(button);
    }
  });

by("search").addEventListener("input", shown);
by("all").addEventListener("click", async () => {
  for (const row of rows.values()) if (!row.item.hidden && !(await begin({ scenario: row.id }))) return;
});

function watch() {
  const source = new EventSource("/board");
  source.onmessage = (event) => {
    const state = JSON.parse(event.data);
    const row = rows.get(`${state.path}\n${state.service}\n${state.label}`);
    if (!row || state.by_hand) return;
    const verdict = row.item.querySelector(".verdict");
    verdict.hidden = false;
    verdict.textContent = state.verdict;
    verdict.className = "verdict " + state.verdict;
    row.item.querySelector(".reason").textContent = state.reason;
    verdict.href = "/plays/" + state.id;
    verdict.setAttribute("aria-label", `${state.verdict}: see this play of ${state.title}`);
  };
}
