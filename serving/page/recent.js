// The decisions of this tab, with running totals; kept nowhere else.

const MOST = 50;  // rows that are shown

export class Recent {
  constructor(ladder, totals, shares, table) {
    Object.assign(this, { ladder, totals, shares, table, used: 0, saved: 0, answers: 0 });
    this.of = Object.fromEntries(ladder.map((tokens) => [tokens, 0]));
  }

  /** Count an answer: {question, text, m3, ms}. */
  add({ question, text, m3, ms }) {
    this.answers += 1;
    this.used += m3.visual_tokens;
    this.saved += m3.saved_tokens;
    this.of[m3.tokens] += 1;
    const cells = [question, text, m3.why, m3.tokens, m3.saved_tokens, ms.toFixed(0)];
    const row = document.createElement("tr");
    row.append(...cells.map((cell, i) => {
      const box = document.createElement("td");
      box.textContent = cell;
      box.className = i > 2 ? "number" : "";
      return box;
    }));
    const body = this.table.querySelector("tbody");
    body.prepend(row);
    if (body.rows.length > MOST) body.deleteRow(-1);
    this.#tell();
  }

  #tell() {
    const share = (part, whole) => `${Math.round((100 * part) / Math.max(1, whole))}%`;
    const mix = this.ladder.filter((tokens) => this.of[tokens]).map((tokens) => `${tokens}: ${share(this.of[tokens], this.answers)}`);
    this.totals.textContent = `${this.answers} answer${this.answers === 1 ? "" : "s"}, ${this.used} visual tokens used, ${this.saved} saved (${share(this.saved, this.used + this.saved)}). Share of each scale: ${mix.join(", ")}`;
    this.table.hidden = this.shares.hidden = false;
    this.shares.ariaLabel = `share of each scale: ${mix.join(", ")}`;
    this.shares.replaceChildren(...this.ladder.map((tokens, i) => {
      const piece = document.createElement("i");
      piece.style.flexGrow = this.of[tokens];
      piece.style.setProperty("--shade", `var(--scale-${Math.min(i, 4)})`);
      piece.title = `${tokens} tokens: ${share(this.of[tokens], this.answers)}`;
      return piece;
    }));
  }
}
