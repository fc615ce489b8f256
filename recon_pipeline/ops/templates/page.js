"use strict";
(() => {
  const EVERY_MS = 15000;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  const announce = document.getElementById("announce");
  let ahead = Number(live.dataset.now) - Date.now();
  let updated = Date.now();

  const whole = (text, rest, unit) => (rest === 0 ? text : `${text} ${rest} ${unit}`);
  const length = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 86400) return whole(`${Math.floor(s / 3600)} h`, Math.floor((s % 3600) / 60), "min");
    return whole(`${Math.floor(s / 86400)} d`, Math.floor((s % 86400) / 3600), "h");
  };

  const about = (ms) => length(ms).replace(/ min \d+ s$/, " min");

  const tick = () => {
    const now = Date.now() + ahead;
    for (const element of document.querySelectorAll("[data-since]")) {
      const said = element.classList.contains("age") ? length : about;
      const text = said(now - Number(element.dataset.since));
      if (element.textContent !== text) element.textContent = text;
    }
  };

  const localise = () => {
    for (const element of live.querySelectorAll("time[datetime]")) {
      element.title = `${new Date(element.dateTime).toLocaleString()} (your time)`;
    }
  };

  const busy = () => {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && live.contains(selection.anchorNode);
  };

  // Whoever is choosing a filter keeps the form as it is; everything around it is replaced.
  let touched = false;
  const replace = (fresh) => {
    const form = live.querySelector("form");
    const other = fresh.querySelector("form");
    if (form === null || other === null || !(touched || form.contains(document.activeElement))) {
      live.replaceChildren(...fresh.childNodes);
      return;
    }
    while (live.firstChild !== form) live.firstChild.remove();
    while (form.nextSibling !== null) form.nextSibling.remove();
    while (fresh.firstChild !== other) form.before(fresh.firstChild);
    other.remove();
    live.append(...fresh.childNodes);
  };

  const show = (text, date) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("live");
    if (fresh === null) throw new Error("this is not the page");
    const focused = live.contains(document.activeElement) ? document.activeElement : null;
    const before = live.dataset.summary;
    replace(fresh);
    live.dataset.summary = fresh.dataset.summary;
    live.dataset.now = fresh.dataset.now;
    document.title = page.title;
    const icon = page.querySelector("link[rel=icon]");
    if (icon !== null) document.querySelector("link[rel=icon]").href = icon.href;
    if (before !== live.dataset.summary) announce.textContent = live.dataset.summary;
    if (focused !== null && !focused.isConnected) {
      const again = focused.id
        ? document.getElementById(focused.id)
        : [...live.querySelectorAll("a[href]")].find((link) => link.getAttribute("href") === focused.getAttribute("href"));
      if (again) again.focus({ preventScroll: true });
    }
    // The server may have made the page some seconds ago; its answer's date is the instant.
    ahead = Math.max(Number(live.dataset.now), date) - Date.now();
    updated = Date.now();
    lost.hidden = true;
    localise();
    tick();
  };

  let asking = false;
  const update = async () => {
    if (asking || document.hidden || busy()) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok && answer.status !== 503) throw new Error(`status ${answer.status}`);
      const text = await answer.text();
      if (!busy()) show(text, Date.parse(answer.headers.get("date")) || 0);
    } catch {
      const since = lost.querySelector("[data-since]");
      since.dataset.since = String(updated + ahead);
      lost.hidden = false;
      tick();
    } finally {
      asking = false;
    }
  };

  live.addEventListener("input", () => {
    touched = true;
  });
  live.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
  document.addEventListener("visibilitychange", () => {
    tick();
    update();
  });
  setInterval(tick, 1000);
  setInterval(update, EVERY_MS);
  localise();
  tick();
})();
