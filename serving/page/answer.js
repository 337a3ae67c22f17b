// What came back: the answer with its decision, and the answers at all scales side by side.

const $ = (id) => document.getElementById(id);
const plural = (tokens) => `${tokens} visual token${tokens === 1 ? "" : "s"}`;
const WHYS = {
  predicted: "the router chose",
  cached: "the router chose before, and remembered",
  forced: "as you asked",
  unfamiliar: "unlike what the router learnt from, so the finest",
  unsure: "a first answer was unsure, so more",
  fallback: "the prediction failed, so the finest",
};
const PARTS = [["decision", "--scale-1"], ["until the first word", "--scale-3"], ["the rest of the answer", "--line"]];

/** Show a stream of `ask` as it comes. Returns {text, m3, ms}. */
export async function showAnswer(stream, ladder, look) {
  let text = "", firstMs = null, last = null;
  for await (const told of stream) {
    if (told.tokens) {
      $("answer").hidden = false;
      $("said").textContent = "…";
      $("decided").textContent = plural(told.tokens);
      $("chances").hidden = true;
      $("times").replaceChildren();
      look(told.tokens);
    }
    if (told.text) {
      firstMs ??= told.ms;
      text += told.text;
      $("said").textContent = text;
    }
    last = told;
  }
  const { m3, ms } = last;
  if (!text) $("said").textContent = "(no words)";
  const saved = m3.saved_tokens > 0 ? `, ${m3.saved_tokens} saved` : "";
  $("decided").textContent = `${plural(m3.visual_tokens)} used${saved}: ${WHYS[m3.why] ?? m3.why}`;
  look(m3.tokens);
  showChances(ladder, m3);
  showTimes([m3.decision_ms, (firstMs ?? ms) - m3.decision_ms, ms - (firstMs ?? ms)], ms);
  return { text, m3, ms };
}

/** P(right answer) at each scale, as bars; none where nothing was predicted. */
function showChances(ladder, m3) {
  $("chances").hidden = !m3.probabilities;
  if (!m3.probabilities) return;
  $("chances").tBodies[0].replaceChildren(...ladder.map((tokens) => {
    const chance = m3.probabilities[tokens];
    const row = document.createElement("tr");
    row.innerHTML = `<th scope="row">${tokens}</th><td><div class="bar"><span><i></i></span>${(100 * chance).toFixed(1)}%</div></td>`;
    row.querySelector("i").style.width = `${100 * chance}%`;
    row.classList.toggle("chosen", tokens === m3.tokens);
    if (tokens === m3.tokens) row.ariaCurrent = "true";
    return row;
  }));
}

function showTimes(parts, wholeMs) {
  const bar = Object.assign(document.createElement("div"), { className: "times" });
  const legend = Object.assign(document.createElement("ul"), { className: "legend" });
  const whole = document.createElement("li");
  whole.textContent = `${wholeMs.toFixed(0)} ms in all`;
  parts.forEach((ms, i) => {
    const [name, colour] = PARTS[i];
    const piece = document.createElement("i");
    piece.style.flexGrow = Math.max(ms, 0);
    piece.style.background = `var(${colour})`;
    bar.append(piece);
    const item = document.createElement("li");
    const mark = document.createElement("i");
    mark.style.setProperty("--shade", `var(${colour})`);
    item.append(mark, `${name} ${Math.max(ms, 0).toFixed(1)} ms`);
    legend.append(item);
  });
  legend.prepend(whole);
  bar.ariaHidden = "true";
  $("times").replaceChildren(bar, legend);
}

/** Show the answers at all scales as they stream, and mark the scale that the router would take. */
export async function showScales(room, ladder, streams, chosen) {
  const cards = ladder.map((tokens) => {
    const card = document.createElement("article");
    card.innerHTML = `<h3>${plural(tokens)}</h3><p>…</p><p class="quiet"></p>`;
    return card;
  });
  room.replaceChildren(...cards);
  room.hidden = false;
  const follow = async (stream, card) => {
    let text = "";
    for await (const { text: more, m3, ms } of stream) {
      if (more) text += more;
      if (more || m3) card.children[1].textContent = text || "(no words)";
      if (m3) card.children[2].textContent = `${ms.toFixed(0)} ms`;
    }
  };
  const mark = async () => {
    const { tokens } = await chosen;
    const card = cards[ladder.indexOf(tokens)];
    card.classList.add("chosen");
    card.append(Object.assign(document.createElement("p"), { className: "quiet", textContent: "the router's choice" }));
  };
  await Promise.all([mark(), ...streams.map((stream, i) => follow(stream, cards[i]))]);
}
