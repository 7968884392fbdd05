"use strict";
// The list of scenarios, with what came of each.

theme.begin();

const rows = new Map(); // path and label → what stands in the list

async function play(id, open) {
  const answer = await fetch("/plays", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ scenario: id }) });
  const begun = await answer.json();
  if (open && begun.id) location.href = "/plays/" + begun.id;
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
      button.addEventListener("click", () => play(scenario.id, true));
      const verdict = element("span", "", "verdict skip");
      verdict.hidden = true;
      const link = element("a", scenario.title);
      const words = element("span");
      words.append(link, element("span", " " + scenario.label, "facts"));
      item.append(button, words, verdict, element("span", "", "facts reason"));
      item.title = scenario.about || "";
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

by("search").addEventListener("input", shown);
by("all").addEventListener("click", async () => {
  for (const row of rows.values()) if (!row.item.hidden) await play(row.id, false);
});

function watch() {
  const source = new EventSource("/board");
  source.onmessage = (event) => {
    const state = JSON.parse(event.data);
    const row = rows.get(`${state.path}\n${state.service}\n${state.label}`);
    if (!row) return;
    const verdict = row.item.querySelector(".verdict");
    verdict.hidden = false;
    verdict.textContent = state.verdict;
    verdict.className = "verdict " + state.verdict;
    row.item.querySelector(".reason").textContent = state.reason;
    row.item.querySelector("a").href = "/plays/" + state.id;
  };
}
