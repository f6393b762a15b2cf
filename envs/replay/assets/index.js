"use strict";
(() => {
  const filter = document.getElementById("filter"), shown = document.getElementById("shown");
  const groups = [...document.querySelectorAll("details")].map((group) => {
    const driver = group.querySelector("h2").textContent;
    const rows = [...group.querySelectorAll("tbody tr")];
    return { group, rows: rows.map((row) => ({ row, text: `${driver} ${row.textContent}`.toLowerCase() })) };
  });
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0, total = 0;
    for (const { group, rows } of groups) {
      let some = false;
      for (const { row, text } of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        some ||= !row.hidden;
        count += !row.hidden;
        total += 1;
      }
      group.hidden = !some;
    }
    shown.textContent = words.length ? `${count} of ${total} episodes` : `${total} episodes`;
  };
  filter.hidden = false;
  filter.addEventListener("input", show);
  show();
})();
