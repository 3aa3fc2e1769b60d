"use strict";
// Without this script everything is shown; it only adds the search.
const search = document.getElementById("search");
if (search) {
  search.hidden = false;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const group of document.querySelectorAll(".group")) {
      const head = group.querySelector("header").textContent.toLowerCase();
      let left = 0;
      for (const finding of group.querySelectorAll(".finding")) {
        const text = head + finding.textContent.toLowerCase();
        const match = words.every((word) => text.includes(word));
        finding.classList.toggle("off", !match);
        left += match;
      }
      group.classList.toggle("off", left === 0);
    }
  });
}
