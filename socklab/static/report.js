"use strict";
// A report: all marks are in the page, packed.

async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const page = new Page();
unpacked("marks").then((marks) => {
  page.apply(marks);
  if (!page.recall() && page.store.verdict?.verdict === "fail") page.toFailure();
  addEventListener("hashchange", () => page.recall());
  document.documentElement.dataset.ready = "yes";
});
