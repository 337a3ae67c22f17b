// The page: a picture, a question, and what was decided about them.

import { Refusal, ask, route } from "./api.js";
import { Recent } from "./recent.js";
import { draw } from "./view.js";
import { showAnswer, showScales } from "./answer.js";

const $ = (id) => document.getElementById(id);
const { ladder: told, aspect, tiny, keys, longest } = document.documentElement.dataset;
const ladder = told.split(",").map(Number);
const LOSSES = [null, 0, 0.005, 0.01, 0.02, 0.05, 0.1];  // null: as the router was calibrated
const LARGEST_BYTES = Number(longest);

const recent = new Recent(ladder, $("totals"), $("shares"), $("recent"));
let picture = null;  // {url, image}
let asking = null;  // AbortController of the question under way

// ---- picture

async function choose(blob) {
  complain("picture-error", "");
  if (blob.size > LARGEST_BYTES) {
    complain("picture-error", `That file has ${(blob.size / 1e6).toFixed(1)} MB; at most ${(LARGEST_BYTES / 1e6).toFixed(1)} MB can be sent.`);
    return;
  }
  const url = await dataUrl(blob);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    complain("picture-error", `${blob.name ?? "That"} is no picture that this browser can show.`);
    return;
  }
  picture = { url, image };
  $("view").hidden = false;
  $("invitation").hidden = true;
  clear();
  look();
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** Draw the grid of a number of tokens: the one that was decided, else the slider's. */
function look(decided = null) {
  const tokens = decided ?? fixed();
  if (!picture) return;
  draw($("view"), picture.image, aspect, tokens);
  const side = tokens && Math.round(Math.sqrt(tokens));
  $("grid").textContent = tokens ? `${count(tokens)}: the picture averaged over ${side} x ${side} cell${side === 1 ? "" : "s"}${aspect === "anyres" ? " of each tile" : ""}` : "";
}

$("file").addEventListener("change", () => {
  if ($("file").files[0]) choose($("file").files[0]).then(() => suggest([]));
  $("file").value = "";  // the same file may be chosen again
});
for (const kind of ["dragenter", "dragover"]) {
  $("drop").addEventListener(kind, (event) => (event.preventDefault(), $("drop").classList.add("over")));
}
for (const kind of ["dragleave", "drop"]) {
  $("drop").addEventListener(kind, () => $("drop").classList.remove("over"));
}
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) choose(file).then(() => suggest([]));
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) choose(file).then(() => suggest([]));
});

// ---- samples

async function offerSamples() {
  const samples = await (await fetch("page/samples/samples.json")).json();
  for (const sample of samples) {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaPressed = "false";
    const image = new Image();
    [image.src, image.alt, image.width, image.height] = [`page/samples/${sample.file}`, sample.title, 96, 96];
    button.append(image);
    button.addEventListener("click", async () => {
      await choose(await (await fetch(image.src)).blob());
      for (const each of $("samples").children) each.ariaPressed = String(each === button);
      suggest(sample.questions);
      $("question").value = sample.questions[0];
    });
    $("samples").append(button);
  }
}

function suggest(questions) {
  if (!questions.length) for (const each of $("samples").children) each.ariaPressed = "false";
  $("suggestions").replaceChildren(...questions.map((question) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = question;
    button.addEventListener("click", () => {
      $("question").value = question;
      $("form").requestSubmit();
    });
    return button;
  }));
}

// ---- knobs

const fixed = () => ladder[Number($("scale").value) - 1] ?? null;
const count = (tokens) => `${tokens} visual token${tokens === 1 ? "" : "s"}`;

function turn() {
  const tokens = fixed(), loss = LOSSES[$("loss").value];
  $("scale-told").value = tokens ? `always ${tokens}` : "the router decides";
  $("scale").setAttribute("aria-valuetext", $("scale-told").value);
  $("loss").disabled = tokens !== null;
  $("loss-told").value = tokens ? "of no account at a fixed scale" : loss === null ? "as the router was calibrated" : `${100 * loss} points against ${count(ladder.at(-1))}`;
  $("loss").setAttribute("aria-valuetext", $("loss-told").value);
  look();
}

function model() {
  const tokens = fixed(), loss = LOSSES[$("loss").value];
  return tokens ? `m3-${tokens}` : loss === null ? "m3-auto" : `m3-auto-${loss}`;
}

// ---- asking

function complain(where, message) {
  $(where).textContent = message;
}

function clear() {
  for (const where of ["picture-error", "question-error", "error"]) complain(where, "");
  $("answer").hidden = $("scales").hidden = true;
}

/** Show an error where it belongs: at the picture, the question, or the answer. */
function explain(error) {
  if (error.name === "AbortError") return;
  const param = error.param ?? "";
  const where = /image|picture/.test(param) ? "picture-error" : /messages|text/.test(param) ? "question-error" : "error";
  complain(where, error instanceof Refusal ? error.message : `This page failed: ${error.message}`);
  if (!(error instanceof Refusal)) console.error(error);
}

/** Run `work` for the picture and the question at hand; a question asked meanwhile ends it. */
async function about(work) {
  clear();
  const question = $("question").value.trim();
  if (!picture) complain("picture-error", "Choose a picture first.");
  if (!question) complain("question-error", "Type a question first.");
  if (!picture || !question) return;
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    await work(question, picture.url, $("key").value, mine.signal);
  } catch (error) {
    explain(error);
    mine.abort();
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  about(async (question, url, key, signal) => {
    const { m3, text, ms } = await showAnswer(ask(model(), question, url, key, signal), ladder, look);
    recent.add({ question, text, m3, ms });
  });
});

$("all").addEventListener("click", () => about(async (question, url, key, signal) => {
  const chosen = route("m3-auto", question, url, key, signal);
  const answers = ladder.map((tokens) => ask(`m3-${tokens}`, question, url, key, signal));
  await showScales($("scales"), ladder, answers, chosen);
  look((await chosen).tokens);
}));

for (const knob of ["scale", "loss"]) $(knob).addEventListener("input", turn);

$("scale").max = ladder.length;
$("loss").max = LOSSES.length - 1;
$("scale-names").append(...["auto", ...ladder].map((name) => Object.assign(document.createElement("span"), { textContent: name })));
$("scale-ticks").append(...["auto", ...ladder].map((name, i) => new Option(name, i)));
$("tiny").hidden = tiny !== "true";
$("key-row").hidden = keys !== "true";
turn();
offerSamples().catch(explain);
