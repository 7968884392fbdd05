"use strict";
// A play that goes on: marks come as they are made. A connection that is lost goes on where it was (Last-Event-ID).

const page = new Page();
page.diagram.follow = true;
const hand = typeof Hand === "undefined" ? null : new Hand(page);
const source = new EventSource(location.pathname + "/marks");
document.documentElement.dataset.live = "yes";

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
  hand?.ended();
  if (!page.recall() && page.store.verdict?.verdict === "fail") page.toFailure();
});
addEventListener("hashchange", () => page.recall());
