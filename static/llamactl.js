/* What htmx does not do by itself: copying, patience with a reader, and saying that the server is gone. */
"use strict";

/* A <details> that was opened stays open when its surroundings are merged. */
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(name === "open" && node.tagName === "DETAILS");

const isReading = (part) => {
  const selection = document.getSelection();
  const selects = selection && !selection.isCollapsed && selection.containsNode(part, true);
  const log = part.querySelector(".log");
  return selects || (log !== null && Math.abs(log.scrollTop) > 24);
};

/* A part that polls: not from a hidden tab, and not under the hands of someone who marks text in it
   or has scrolled back in its log. */
document.addEventListener("htmx:confirm", (event) => {
  const polls = event.detail.triggeringEvent === undefined;
  if (polls && (document.hidden || isReading(event.target))) {
    event.preventDefault();
  }
});

/* The choice of a page's language of errors is the server's; only its absence is told here. */
const tellAbsence = (absent) => {
  document.getElementById("absent").hidden = !absent;
};
document.addEventListener("htmx:sendError", () => tellAbsence(true));
document.addEventListener("htmx:beforeOnLoad", () => tellAbsence(false));

/* Buttons that copy exist only where copying works (a secure origin, loopback included). */
if (navigator.clipboard) {
  document.documentElement.classList.add("can-copy");
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button === null) {
    return;
  }
  await navigator.clipboard.writeText(button.dataset.copy);
  const told = button.querySelector("[aria-live]");
  told.textContent = "Copied";
  setTimeout(() => {
    told.textContent = "Copy";
  }, 1500);
});
