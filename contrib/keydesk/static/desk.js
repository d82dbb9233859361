// The copy buttons. Without this script the buttons stay hidden, and the values can be
// selected and copied by hand.
"use strict";

const said = document.getElementById("copied");

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Browsers keep the clipboard from pages without HTTPS. Leave the value selected.
    select(source);
    said.textContent = "Selected. Press Ctrl+C or ⌘C to copy.";
    return;
  }
  const label = button.querySelector("span");
  label.textContent = "Copied";
  said.textContent = button.getAttribute("aria-label").replace("Copy the", "Copied the") + ".";
  setTimeout(() => { label.textContent = "Copy"; }, 2000);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

// A second click would ask for the same key again, and the answer to that hides the
// first one, which shows the key.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
    }
    form.dataset.sent = "true";
  });
}

// A page that comes back from the history can be sent again, and must not show a key.
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    location.reload();
  }
});
