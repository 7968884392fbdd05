"use strict";
// A play that goes on: marks come as they are made. A connection that is lost goes on where it was (Last-Event-ID).

const page = new Page();
page.diagram.follow = true;
by("verdict").textContent = "running";
const hand = typeof Hand === "undefined" ? null : new Hand(page);
const source = new EventSource(location.pathname + "/marks");
document.documentElement.dataset.live = "yes";

// A browser tries again by itself, unless it was told that there is no such play any more.
source.onopen = () => (by("lost").textContent = "");
source.onerror = () => {
  by("lost").textContent = source.readyState === EventSource.CLOSED ? "this play is not there any more" : "no connection; trying again";
};
source.onmessage = (event) => {
  const marks = JSON.parse(event.data);
  if (marks === null) page.reset();
  else page.apply(marks);
  hand?.refresh();
  document.documentElement.dataset.ready = "yes";
};
source.addEventListener("end", () => {
  source.close();
  document.documentElement.dataset.live = "ended";
  page.diagram.follow = false;
  by("lost").textContent = "";
  by("keep").href = location.pathname + "/report.html";
  by("keep").hidden = false;
  hand?.ended();
  if (!page.recall() && page.store.verdict?.verdict === "fail") page.toFailure();
});
addEventListener("hashchange", () => page.recall());
