"use strict";
// Draws the figures in the palette of the reader's mode, and in the light one for paper.
const page = JSON.parse(document.getElementById("curves").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function dress(figure, palette) {
  const text = JSON.stringify(figure).replace(/"--([a-z-]+)"/g, (_, name) => JSON.stringify(palette[name]));
  return JSON.parse(text);
}

function draw(mode, size = {}) {
  for (const [name, figure] of Object.entries(page.figures)) {
    const { data, layout } = dress(figure, page.palette[mode]);
    const options = { displayModeBar: false, responsive: true, scrollZoom: false };
    Plotly.react("figure-" + name, data, { ...layout, ...size }, options);
  }
}

const drawForScreen = () => draw(dark.matches ? "dark" : "light");
drawForScreen();
dark.addEventListener("change", drawForScreen);
addEventListener("beforeprint", () => {
  document.querySelectorAll(".chat details").forEach((d) => { d.dataset.was = d.open; d.open = true; });
  draw("light", { autosize: false, width: 320, height: 210 });
});
addEventListener("afterprint", () => {
  document.querySelectorAll(".chat details").forEach((d) => { d.open = d.dataset.was === "true"; });
  drawForScreen();
});
