"use strict";

// A second click while the first is on its way sends nothing: what is shown once, a new password say, would be lost.
// What must not be done twice is seen to by the server, whatever a browser sends.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});

// Somebody came back to the page by the browser's button.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.forms) delete form.dataset.sent;
});
