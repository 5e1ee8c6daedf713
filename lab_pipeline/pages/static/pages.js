// Keys for the review of rows, and a word where a request fails. Without it, all forms work by their buttons.
"use strict";

const trouble = () => document.getElementById("trouble");

document.addEventListener("htmx:responseError", (event) => say(event.detail.xhr.status === 401 ? "Log in again: reload the page." : "The server refused: reload the page and try again."));
document.addEventListener("htmx:sendError", () => say("The server does not answer. Is lab-pipeline still running?"));
document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) trouble().hidden = true; });

function say(text) {
  trouble().textContent = text;
  trouble().hidden = false;
}

// The row that the reviewer works on: the one that holds the focus, else the first on the screen.
function current() {
  const focused = document.activeElement?.closest("article.row");
  return focused ?? [...document.querySelectorAll("article.row")].find((row) => row.getBoundingClientRect().bottom > 80);
}

function move(step) {
  const rows = [...document.querySelectorAll("article.row")];
  const at = rows.indexOf(document.activeElement?.closest("article.row"));
  const row = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)];
  row?.focus();
  row?.scrollIntoView({ block: "nearest" });
}

function decide(decision) {
  const form = current()?.querySelector("form.review");
  const button = form?.querySelector(`button[value="${decision}"]`);
  if (!button) return;
  if (decision === "undo") button.click(); // htmx sends the name of a button only if it was clicked
  else {
    form.dataset.decision = decision;
    form.elements.reason.placeholder = `Why ${decision} it? Enter saves, Escape leaves`;
    form.elements.reason.focus();
  }
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  b: () => decide("ban"),
  p: () => decide("pin"),
  u: () => decide("undo"),
  o: () => current()?.querySelector("a.open")?.click(),
  "/": () => document.querySelector("input[name=text]")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, textarea, select");
  if (field?.name === "reason" && event.key === "Enter") {
    event.preventDefault();
    const form = field.form;
    form.querySelector(`button[value="${form.dataset.decision ?? "ban"}"]`).click();
  } else if (field && event.key === "Escape") {
    const row = field.closest("article.row");
    field.blur();
    row?.focus();
  } else if (!field && !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

// A decided row keeps the focus, so that the next key goes on from it.
document.addEventListener("htmx:afterSwap", (event) => {
  const row = event.detail.elt.matches?.("article.row") ? event.detail.elt : null;
  if (row) (row.querySelector(".said") ? row.querySelector("input[name=reason]") : row)?.focus();
});

// A click on a problem's line puts the cursor there.
document.addEventListener("click", (event) => {
  const line = event.target.closest("button[data-line]");
  if (!line) return;
  const editor = document.getElementById("qna");
  const lines = editor.value.split("\n");
  const start = lines.slice(0, line.dataset.line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  editor.focus();
  editor.setSelectionRange(start, start + (lines[line.dataset.line - 1] ?? "").length);
  editor.scrollTop = (line.dataset.line - 5) * parseFloat(getComputedStyle(editor).lineHeight);
});
