// Curves of a run, drawn by uPlot; asked for again as long as they are on the page.
const PAUSE = 3000;
const LOGARITHMIC = 3;
const FAINT = "66"; // of 255: what shows through behind a smoothed line
const FEW = 60; // so few points are drawn as points too
const STEP = "step", TIME = "time";

export async function drawCharts(place, ask, say) {
  let seen = -1, asked = "", charts = [], drawn = [], form = "", axis = STEP, restarts = [[], []];
  const logarithmic = document.querySelector("#logarithmic"), smoothing = document.querySelector("#smoothing"), over = document.querySelector("#over");
  const chosen = () => `smooth=${smoothing.value}&x=${over.value}`;
  const clear = () => {
    drawn.forEach(({ plot }) => plot.destroy());
    place.replaceChildren();
  };
  const show = () => {
    const wanted = JSON.stringify([logarithmic.checked, asked, axis, restarts, charts.map((chart) => [chart.name, present(chart, say).length])]);
    if (wanted === form) {
      drawn.forEach((each, at) => each.update(charts[at]));
      return;
    }
    clear();
    drawn = charts.map((chart) => draw(place, chart, say, { logarithmic: logarithmic.checked, axis, marks: restarts[1] }));
    form = wanted;
  };
  logarithmic.addEventListener("change", show);
  const resized = new ResizeObserver(() => drawn.forEach(({ plot }) => plot.setSize({ width: widthIn(place), height: plot.height })));
  resized.observe(place);
  const read = async () => {
    const wanted = chosen();
    const answer = document.hidden ? null : await ask(`${place.dataset.path}${wanted}&seen=${wanted === asked ? seen : -1}`);
    if (answer?.status !== 200 || !place.isConnected || wanted !== chosen()) return;
    ({ size: seen, charts, axis, restarts = [[], []] } = await answer.json());
    asked = wanted;
    const empty = document.querySelector("#no-progress");
    if (empty) empty.hidden = charts.length > 0;
    tellAbove(charts.length && axis !== over.value ? say("no_such_axis") : "", restarts[0].length ? `${say("restarted")} ${restarts[0].join(", ")}` : "");
    show();
  };
  const tryToRead = () => read().catch(() => {}); // the board is away; the head of the page says so, and this asks again
  smoothing.addEventListener("change", tryToRead);
  over.addEventListener("change", tryToRead);
  while (place.isConnected) {
    await tryToRead();
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  resized.disconnect();
  clear();
}

// What concerns all charts stands above them, for whoever cannot see the marks too.
function tellAbove(...sentences) {
  const place = document.querySelector("#restarts"), text = sentences.filter(Boolean).join(" ");
  if (!place) return;
  place.textContent = text;
  place.hidden = !text;
}

const widthIn = (place) => Math.max(260, place.clientWidth - 14);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The lines of a chart: of one run its training and its evaluation, of several runs those of each in a colour of its own.
function present(chart, say) {
  const lines = chart.runs === undefined
    ? [...both(say("in_training"), "--line-1", chart.training, say), { label: say("in_evaluation"), colour: "--line-2", dashed: true, ...chart.evaluation }]
    : chart.runs.flatMap(({ label, training, evaluation }, at) => [
      ...both(label, `--line-${at + 1}`, training, say),
      { label: `${label} ${say("in_evaluation")}`, colour: `--line-${at + 1}`, dashed: true, ...evaluation },
    ]);
  return lines.filter((line) => line.steps.length || line.not_finite.length);
}
// What was smoothed is drawn over the values themselves, which stay.
function both(label, colour, line, say) {
  if (!line.smoothed) return [{ label, colour, ...line }];
  return [{ label, colour, faint: true, ...line }, { label: `${label}, ${say("smoothed")}`, colour, made: true, steps: line.steps, x: line.x, values: line.smoothed, not_finite: [] }];
}
const dataOf = (lines) => lines.length ? uPlot.join(lines.map((line) => [line.x ?? line.steps, line.values])) : [[], []];
const number = (value) => value === null ? "" : value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : value.toLocaleString("en", { maximumFractionDigits: 4 });

const clock = (seconds) => seconds === null ? "" : [seconds / 3600, (seconds % 3600) / 60, seconds % 60].map((part) => String(Math.floor(part)).padStart(2, "0")).join(":");
const many = (value) => value === null ? "" : value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
const below = { [STEP]: number, [TIME]: clock, tokens: many };

// A dotted line where the run went on from a checkpoint.
const marked = (marks) => (plot) => {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour("--text");
  ctx.setLineDash([2, 4]);
  for (const x of marks.map((mark) => plot.valToPos(mark, "x", true)).filter((x) => x >= bbox.left && x <= bbox.left + bbox.width)) {
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
};

function draw(place, chart, say, { logarithmic, axis: over, marks }) {
  const box = document.createElement("figure"), lost = document.createElement("p"), values = table(say);
  box.setAttribute("aria-label", chart.name);
  place.append(box);
  const lines = present(chart, say), positive = lines.every(({ values: each }) => each.every((value) => value > 0));
  const axis = { stroke: colour("--text"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const line = ({ label, colour: name, dashed, faint, made, steps }) => ({
    label, stroke: faint ? `${colour(name)}${FAINT}` : colour(name), width: dashed || made ? 2 : 1.5, spanGaps: true,
    ...(dashed ? { dash: [6, 3], points: { show: true, size: 6 } } : { points: { show: !made && steps.length < FEW, size: 4 } }),
  });
  const plot = new uPlot({
    title: chart.name, width: widthIn(place), height: 240,
    scales: { x: { time: false }, y: { distr: logarithmic && positive ? LOGARITHMIC : 1 } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map(below[over]) }, { ...axis, size: 70, values: (_, ticks) => ticks.map(number) }],
    series: [{ label: say(over === STEP ? "step" : `over_${over}`), value: (_, value) => value === null ? "--" : below[over](value) }, ...(lines.length ? lines.map(line) : [{}])],
    cursor: { drag: { x: true, y: false } },
    hooks: { draw: [marked(marks)] },
  }, dataOf(lines), box);
  const tell = (now) => {
    const steps = [...new Set(present(now, say).flatMap((each) => each.not_finite))];
    lost.textContent = steps.length ? `${say("not_finite")} ${steps.join(", ")}` : "";
    values.fill(now);
  };
  box.append(lost, values.element);
  tell(chart);
  return { plot, update: (now) => { plot.setData(dataOf(present(now, say))); tell(now); } };
}

// For whoever cannot see the curve; filled while it is open.
function table(say) {
  const element = document.createElement("details"), summary = document.createElement("summary");
  let chart;
  summary.textContent = say("as_table");
  element.append(summary);
  const fill = (now) => {
    chart = now;
    element.querySelector("table")?.remove();
    if (element.open) element.append(filled(chart, say));
  };
  element.addEventListener("toggle", () => fill(chart));
  return { element, fill };
}

function filled(chart, say) {
  const made = document.createElement("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  for (const text of [say("step"), chart.name, say("what")]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  for (const { steps, values, label, made } of present(chart, say)) {
    if (made) continue; // the table has what was measured
    steps.forEach((step, at) => {
      const row = body.insertRow();
      for (const text of [step, values[at], label]) row.insertCell().textContent = text;
    });
  }
  return made;
}
