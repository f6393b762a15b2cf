// The plans that the driver weighed: a row each, the chosen one first, and what the others cost more.

const TOLD = 3;  // parts of a difference that are told

class WeighedTable {
  constructor(panel, title, table, episode, onPick) {
    Object.assign(this, { panel, title, body: table.tBodies[0], episode, onPick });
    this.any = episode.imaginations.some(({ weighed }) => weighed);
    panel.hidden = !this.any;
    this.shown = null;
  }

  draw(t) {
    if (!this.any) return;
    const imagined = this.episode.imagined(t), weighed = imagined && imagined.weighed;
    if (this.shown === weighed) return;
    this.shown = weighed;
    this.onPick(null);
    if (!weighed) { this.title.textContent = "Plans weighed: none in hand"; this.body.replaceChildren(); return; }
    const when = (imagined.step - weighed.ago) * this.episode.dt_s;
    this.title.textContent = `Plans weighed at ${when.toFixed(1)} s, the chosen one first (point at one to see it)`;
    const chosen = weighed.plans[0];
    this.body.replaceChildren(...weighed.plans.map((plan, place) => {
      const row = document.createElement("tr");
      row.tabIndex = 0;
      row.className = place ? (plan.cost.contact > 0 ? "hits" : "") : "chosen";
      for (const text of [plan.plan, number(plan.energy, 2), place ? difference(plan, chosen) : parts(plan)]) row.insertCell().textContent = text;
      for (const event of ["pointerenter", "focus"]) row.addEventListener(event, () => this.onPick(place));
      for (const event of ["pointerleave", "blur"]) row.addEventListener(event, () => this.onPick(null));
      return row;
    }));
  }
}

function parts(plan) {
  const named = Object.entries(plan.cost).filter(([, value]) => Math.abs(value) >= 0.005);
  return named.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value, 2)}`).join(", ");
}

function difference(plan, chosen) {
  const more = Object.keys(plan.cost).map((name) => [name, plan.cost[name] - (chosen.cost[name] || 0)]);
  const told = more.filter(([, value]) => Math.abs(value) >= 0.005).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, TOLD);
  return told.map(([name, value]) => `${name.replaceAll("_", " ")} ${value > 0 ? "+" : ""}${number(value, 2)}`).join(", ");
}
