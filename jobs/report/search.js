// Finds pictures by concept among those that the page holds. Works on the page alone: it asks nothing of any network.
"use strict";
for (const section of document.querySelectorAll(".find")) {
  const form = section.querySelector("form");
  const box = form.querySelector("input");
  const told = section.querySelector(".told");
  const list = section.querySelector(".found");
  const more = section.querySelector(".more");
  const hints = section.querySelector(".hints");
  const first = Number(section.dataset.first);
  const bare = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const tiles = [...list.children].map((item, place) => ({
    item, place, concepts: JSON.parse(item.dataset.concepts).map(([phrase, score]) => ({ phrase, score, bare: bare(phrase) })),
  }));
  const words = [...new Set(tiles.flatMap((tile) => tile.concepts.map((concept) => concept.phrase)))];
  let all = false;

  // How well a concept answers a term: 2 as a whole word, 1 by the beginning of a word or anywhere in scripts without spaces.
  const fit = (concept, term) => {
    const parts = concept.bare.split(/[^\p{L}\p{N}]+/u);
    if (concept.bare === term || parts.includes(term)) return 2;
    return parts.some((part) => part.startsWith(term)) || (/[^\x00-\x7f]/.test(term) && concept.bare.includes(term)) ? 1 : 0;
  };

  const look = (tile, terms) => {
    let fits = 0, score = 0;
    const because = new Map();
    for (const term of terms) {
      let best = null, grade = 0;
      for (const concept of tile.concepts) {
        const here = fit(concept, term);
        if (here > grade) [best, grade] = [concept, here];  // concepts come best first
      }
      if (!best) return null;
      fits += grade;
      score += best.score;
      because.set(best.phrase, best.score);
    }
    return { tile, fits, score, because };
  };

  const distance = (left, right) => {
    let row = [...Array(right.length + 1).keys()];
    for (let i = 1; i <= left.length; i++) {
      const next = [i];
      for (let j = 1; j <= right.length; j++) {
        next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (left[i - 1] === right[j - 1] ? 0 : 1));
      }
      row = next;
    }
    return row[right.length];
  };

  const offer = (phrases) => {
    hints.replaceChildren(...phrases.map((phrase) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = phrase;
      button.addEventListener("click", () => { box.value = phrase; box.focus(); show(); });
      return button;
    }));
  };
  const common = JSON.parse(section.dataset.common);

  const show = () => {
    const query = box.value.trim();
    const terms = bare(query).split(/[\s,;]+/u).filter(Boolean);
    for (const tile of tiles) {
      tile.item.hidden = true;
      tile.item.querySelector(".because").textContent = "";
    }
    if (!terms.length) {
      const shown = all ? tiles : tiles.slice(0, first);
      for (const tile of shown) tile.item.hidden = false;
      list.replaceChildren(...tiles.map((tile) => tile.item));
      more.hidden = shown.length === tiles.length;
      told.textContent = more.hidden ? `All ${tiles.length} pictures.` : `The first ${shown.length} of ${tiles.length} pictures.`;
      offer(common);
      return;
    }
    more.hidden = true;
    const hits = tiles.map((tile) => look(tile, terms)).filter(Boolean);
    hits.sort((one, other) => other.fits - one.fits || other.score - one.score || one.tile.place - other.tile.place);
    for (const { tile, because } of hits) {
      tile.item.hidden = false;
      tile.item.querySelector(".because").textContent =
        [...because].map(([phrase, score]) => (score ? `${phrase} ${score.toFixed(2)}` : phrase)).join(" · ");
    }
    const found = new Set(hits.map((hit) => hit.tile));
    list.replaceChildren(
      ...hits.map((hit) => hit.tile.item), ...tiles.filter((tile) => !found.has(tile)).map((tile) => tile.item));
    if (hits.length) {
      told.textContent = `${hits.length} of ${tiles.length} pictures ${hits.length === 1 ? "has" : "have"} “${query}”, the likeliest first.`;
      offer([]);
      return;
    }
    const each = terms.filter((term) => tiles.some((tile) => look(tile, [term])));
    const near = words.map((phrase) => [phrase, Math.min(...terms.map((term) => distance(bare(phrase), term)))])
      .filter(([, far]) => far <= 2).sort((one, other) => one[1] - other[1]).slice(0, 6).map(([phrase]) => phrase);
    told.textContent = terms.length > 1 && each.length
      ? `None of the ${tiles.length} pictures has all of “${query}”. Found alone:`
      : `None of the ${tiles.length} pictures has a concept like “${query}”. ${near.length ? "Spelt like it:" : "Frequent ones:"}`;
    offer(terms.length > 1 && each.length ? each : near.length ? near : common);
  };

  box.addEventListener("input", show);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      box.value = "";
      show();
    } else if (event.key === "Enter") {
      event.preventDefault();
      list.querySelector("li:not([hidden]) summary")?.focus();
    }
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    all = true;
    show();
    tiles[first]?.item.querySelector("summary").focus();
  });
  form.hidden = false;
  show();
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  const box = document.querySelector(".find input");
  if (box) {
    event.preventDefault();
    box.focus();
    box.scrollIntoView({ block: "center" });
  }
});
