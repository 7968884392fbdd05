"use strict";
// Diagrams in the place of their pictures, long lines, and what stands around what was found. Loads nothing.

const KOREAN = document.documentElement.lang === "ko";
const WRAP = KOREAN ? "줄 바꿈" : "Wrap lines";

function dark() {
  const chosen = document.body.dataset.theme;
  return chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
}

// ── diagrams: a report as a frame, as tall as its drawing, in the colours of the page ───────────────────────────────────────
const frames = new Map(); // of the window of a frame, the frame

function embedded(figure) {
  return figure.dataset.report + "#embed=" + (dark() ? "dark" : "light");
}

function enliven(figure) {
  const picture = figure.querySelector("img");
  const frame = document.createElement("iframe");
  frame.title = picture.alt;
  frame.src = embedded(figure);
  frame.height = Math.round(figure.getBoundingClientRect().height); // until it says how tall it is
  figure.prepend(frame);
  frames.set(frame.contentWindow, frame);
}

addEventListener("message", (event) => {
  const frame = frames.get(event.source);
  if (!frame || typeof event.data?.tall !== "number") return;
  frame.height = event.data.tall;
  frame.parentElement.classList.add("live");
});

const near = new IntersectionObserver(
  (seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      enliven(target);
    }
  },
  { rootMargin: "600px" },
);
document.querySelectorAll("figure.play[data-report]").forEach((figure) => near.observe(figure));

function recolour() {
  for (const [inside, frame] of frames) inside.location.replace(new URL(embedded(frame.parentElement), location.href));
}
new MutationObserver(recolour).observe(document.body, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

// ── blocks with lines that do not fit: reached by keyboard, and wrapped on demand ─────────────────────────────────────────────
function fits() {
  for (const block of document.querySelectorAll(".highlight > pre")) {
    const wide = block.scrollWidth > block.clientWidth;
    const button = block.parentElement.querySelector(".wrap");
    if (wide) block.tabIndex = 0;
    else if (!block.classList.contains("wrapped")) block.removeAttribute("tabindex");
    if (wide && !button) block.parentElement.append(wrapper(block));
  }
  for (const box of document.querySelectorAll(".table-wrapper")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}

function wrapper(block) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "wrap";
  button.textContent = WRAP;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => button.setAttribute("aria-pressed", String(block.classList.toggle("wrapped"))));
  return button;
}
fits();
addEventListener("resize", fits);

// ── search: what stands around the words, and the same words in the other language ──────────────────────────────────────────────
const AROUND = 90; // characters before and after

function around(text, words) {
  const low = text.toLowerCase();
  const places = words.map((word) => low.indexOf(word)).filter((at) => at >= 0);
  if (!places.length) return null;
  const first = Math.min(...places);
  const begin = Math.max(0, first - AROUND);
  const part = (begin ? "… " : "") + text.slice(begin, first + 2 * AROUND) + " …";
  const told = document.createElement("p");
  told.className = "context";
  const pattern = new RegExp(words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "gi");
  let at = 0;
  for (const match of part.matchAll(pattern)) {
    told.append(part.slice(at, match.index));
    const mark = document.createElement("mark");
    mark.textContent = match[0];
    told.append(mark);
    at = match.index + match[0].length;
  }
  told.append(part.slice(at));
  return told;
}

const FOUND = "Search finished, found one page matching the search query."; // Sphinx has no Korean for it
if (KOREAN) Documentation.addTranslations({ messages: { [FOUND]: ["찾은 페이지: ${resultCount}"] }, plural_expr: "0", locale: "ko" });

const results = document.getElementById("search-results");
if (results) {
  const asked = new URLSearchParams(location.search).get("q") ?? "";
  const other = document.querySelector(".search-other a");
  if (asked) other.search = new URLSearchParams({ q: asked });
  const words = splitQuery(asked.toLowerCase()).filter(Boolean);
  const tell = (item) => {
    const page = decodeURIComponent(item.querySelector("a").getAttribute("href")).replace(/\.html(#.*)?$/, "");
    if (!words.length) return;
    const [prose, blocks] = window.TEXTS[page] ?? ["", ""];
    const told = around(prose, words) ?? around(blocks, words);
    if (told) item.append(told);
  };
  results.querySelectorAll("li").forEach(tell);
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) if (node.matches?.("li")) tell(node);
  }).observe(results, { childList: true, subtree: true });
}
