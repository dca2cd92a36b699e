// Applies the light, dark or system theme. A classic script in the head, so that the page never flashes in the wrong one.
"use strict";

document.documentElement.dataset.theme = storedTheme();

function storedTheme() {
  try {
    const theme = localStorage.getItem("herdlm.theme");
    return ["light", "dark"].includes(theme) ? theme : "system";
  } catch {
    return "system";
  }
}
