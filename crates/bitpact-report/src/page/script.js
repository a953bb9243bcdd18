"use strict";
// Each chart's data: its frame in pixels of the drawing, the ends of its axes, and the points of its lines.
for (const figure of document.querySelectorAll("[data-chart]")) {
  if (!figure.dataset.chart) continue;
  const data = JSON.parse(figure.dataset.chart);
  const plot = figure.querySelector(".plot"), svg = plot.querySelector("svg");
  const cursor = plot.querySelector(".cursor"), tip = plot.querySelector(".tip");
  const [left, top, right, bottom] = data.frame;
  const [width, height] = [svg.viewBox.baseVal.width / 2, svg.viewBox.baseVal.height / 2];
  const share = (value, [low, high], log) => log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const points = data.lines.flatMap((line, l) => line.points.filter(p => p[0] !== null && p[1] !== null).map(([x, y], i) => ({
    line, l, i, x, y,
    px: left + (right - left) * share(x, data.x, data.log[0]),
    py: bottom - (bottom - top) * share(y, data.y, data.log[1]),
  })));
  const text = value => Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2)
    : String(Number(value.toPrecision(5)));
  let shown = null;
  const show = point => {
    shown = point;
    const scale = svg.getBoundingClientRect().width / width;
    cursor.hidden = tip.hidden = false;
    cursor.style.left = point.px * scale + "px";
    cursor.style.top = point.py * scale + "px";
    cursor.style.background = point.line.ink;
    tip.textContent = (point.line.name ? point.line.name + ": " : "") + data.labels[1] + " " + text(point.y) + " at " + data.labels[0] + " " + text(point.x);
    const limit = plot.clientWidth - tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(limit, point.px * scale - tip.offsetWidth / 2)) + "px";
    const above = point.py * scale - tip.offsetHeight - 10;
    tip.style.top = (above < 0 ? point.py * scale + 12 : above) + "px";
  };
  const hide = () => { cursor.hidden = tip.hidden = true; shown = null; };
  plot.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
    let best = null, least = 60 * 60;
    for (const point of points) {
      const distance = (point.px - x) ** 2 + (point.py - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    if (best) show(best); else hide();
  });
  plot.addEventListener("pointerleave", hide);
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", event => {
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key], across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.target !== figure || !points.length || (along === undefined && across === undefined && event.key !== "Escape")) return;
    event.preventDefault();
    if (event.key === "Escape") return hide();
    if (!shown) return show(points[0]);
    if (along) {
      const own = points.filter(point => point.l === shown.l);
      const at = own.indexOf(shown) + along;
      return show(own[Math.max(0, Math.min(own.length - 1, at))]);
    }
    const lines = [...new Set(points.map(point => point.l))];
    const next = lines[(lines.indexOf(shown.l) + across + lines.length) % lines.length];
    const others = points.filter(point => point.l === next);
    show(others.reduce((a, b) => Math.abs(a.x - shown.x) <= Math.abs(b.x - shown.x) ? a : b));
  });
}
// What is folded away is printed too.
addEventListener("beforeprint", () => document.querySelectorAll("details.card").forEach(card => { card.open = true; }));
