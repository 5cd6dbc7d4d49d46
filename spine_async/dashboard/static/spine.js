// Keeps a page up to date: a stream of events says that something has changed, and htmx loads the content again.
(() => {
  "use strict";
  const address = document.body.dataset.live;
  if (!address || !window.EventSource) return;
  const PAUSE = 700; // milliseconds between two loads
  let source = null;
  let timer = null;
  let loadedAt = 0;

  const load = () => {
    timer = null;
    loadedAt = Date.now();
    if (isBeingEdited()) return later();
    htmx.trigger(document.body, "spine:change");
  };
  const later = () => {
    if (timer === null) timer = setTimeout(load, Math.max(PAUSE - (Date.now() - loadedAt), 0));
  };
  // A field that somebody fills in is not replaced.
  const isBeingEdited = () => {
    const field = document.activeElement;
    return field !== null && field.matches("#content input, #content textarea, #content select");
  };
  const open = () => {
    if (source !== null) return;
    source = new EventSource(address);
    source.addEventListener("open", () => document.body.classList.add("live"));
    source.addEventListener("error", () => document.body.classList.remove("live"));
    source.addEventListener("change", later);
    source.addEventListener("end", () => {
      close();
      document.removeEventListener("visibilitychange", change);
      later();
    });
  };
  const close = () => {
    if (source !== null) source.close();
    source = null;
    document.body.classList.remove("live");
  };
  // A hidden page holds no connection, because a browser opens only a few to one server.
  const change = () => {
    if (document.hidden) return close();
    open();
    later();
  };
  document.addEventListener("visibilitychange", change);
  window.addEventListener("pagehide", close);
  if (!document.hidden) open();
})();
