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

// The filters of a list are in the address, so that a reload, Back and a link that was passed on show the same.
document.addEventListener("htmx:afterRequest", (event) => {
  const form = event.target.closest?.("form[data-address]");
  if (!form || !event.detail.successful) return;
  const chosen = [...new FormData(form)].filter(([, value]) => value);
  const query = new URLSearchParams(chosen).toString();
  history.replaceState(null, "", form.dataset.address + (query ? `?${query}` : ""));
});

// Rows that follow the numbers stay as they are while somebody is busy with them, or has asked for more of them.
document.addEventListener("htmx:beforeRequest", (event) => {
  const list = event.target;
  if (list.id !== "entries") return;
  const isBusy = list.querySelector("details[open]") || list.contains(document.activeElement);
  if (isBusy || list.querySelectorAll("table").length > 1) event.preventDefault();
});

// A stream that fails may mean that the session ended: the page itself then leads to the sign-in, and back here.
let askedAt = 0;
document.addEventListener("htmx:sseError", async () => {
  if (Date.now() - askedAt < 10000) return;
  askedAt = Date.now();
  try {
    const answer = await fetch(location.href, { redirect: "manual" });
    if (answer.type === "opaqueredirect") location.reload();
  } catch {
    // The site is down: the stream tries again by itself.
  }
});
