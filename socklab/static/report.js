"use strict";
// A report: all marks are in the page, packed. As a part of somebody else's page (report.html#embed, #embed=dark) it is the drawing alone,
// and tells that page how tall it is.

const ROWS = 0.8; // zoom of the drawing there

async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const EMBEDDED = /^#embed(?:=(light|dark))?$/;

function embed() {
  const colours = EMBEDDED.exec(location.hash)?.[1];
  if (colours) theme.show(colours);
}

if (EMBEDDED.test(location.hash)) document.documentElement.classList.add("embed");
const page = new Page();
unpacked("marks").then((marks) => {
  page.apply(marks);
  if (document.documentElement.classList.contains("embed")) {
    embed();
    addEventListener("hashchange", embed);
    page.diagram.zoom = ROWS;
    parent.postMessage({ tall: Math.ceil(page.diagram.whole) + by("detail").offsetHeight }, "*");
  } else {
    if (!page.recall() && page.store.verdict?.verdict === "fail") page.toFailure();
    addEventListener("hashchange", () => page.recall());
  }
  document.documentElement.dataset.ready = "yes";
});
