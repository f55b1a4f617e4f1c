/* Keeps a page of the console true while it is looked at.

   The same address is asked for again every few seconds, and what changed is put into the page: into the parts that
   carry data-live, the rows of a list, the head and the badges of the sidebar. What is the same stays the same
   element, so that focus, marked text, ticks, open menus and what was typed stay as they are. Nothing is asked for
   while the page is hidden, and nothing any more once the answer is a redirect: the session has ended then. */
"use strict";

(() => {
  const PAUSE = 4000;
  const LONGEST_PAUSE = 30000; // after failures
  const ANSWER = 10000;
  const LIST = "changelist-form";

  let shownAt = Date.now();
  let failures = 0;
  let ended = false;
  let asking = false;
  let timer = null;
  let notice = null;

  // ---- Putting one document's elements into the other ----

  const typedInto = (node) => ["INPUT", "SELECT", "TEXTAREA"].includes(node.nodeName);

  function keyOf(node) {
    if (node.nodeName !== "TBODY") return null;
    return node.querySelector("input.action-select")?.value ?? node.querySelector("a[href]")?.getAttribute("href");
  }

  function update(have, want) {
    if (have.nodeType !== Node.ELEMENT_NODE) {
      if (have.data !== want.data) have.data = want.data;
    } else if (typedInto(have)) {
      Object.assign(have.dataset, want.dataset); // what may be done to a row, while its tick stays
    } else if (!have.isEqualNode(want)) {
      for (const { name, value } of want.attributes) {
        if (have.getAttribute(name) !== value) have.setAttribute(name, value);
      }
      for (const { name } of [...have.attributes]) {
        if (!want.hasAttribute(name)) have.removeAttribute(name);
      }
      updateChildren(have, want);
    }
  }

  function updateChildren(have, want) {
    const wanted = new Set([...want.children].map(keyOf));
    const known = new Map();
    for (const child of [...have.children]) {
      const key = keyOf(child);
      if (key && !wanted.has(key)) child.remove(); // first, so that those that stay need not move
      else if (key) known.set(key, child);
    }
    let at = have.firstChild;
    for (const child of want.childNodes) {
      const key = keyOf(child);
      const same = key ? known.get(key) : at && !keyOf(at) && at.nodeName === child.nodeName ? at : null;
      if (!same) have.insertBefore(document.importNode(child, true), at);
      else {
        if (same === at) at = at.nextSibling;
        else have.insertBefore(same, at);
        update(same, child);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  // ---- Lists ----

  const ticks = () => document.querySelectorAll("#result_list input.action-select:checked");

  function updateList(fresh) {
    const [have, want] = [document, fresh].map((from) => from.getElementById("result_list"));
    if (!have || !want) {
      if (!ticks().length) {
        document.getElementById(LIST).replaceWith(document.importNode(fresh.getElementById(LIST), true));
        if (want) window.Actions?.(null, { parent: document.querySelector(".result-list-wrapper") });
      }
      return;
    }
    const rows = new Map([...want.tBodies].map((row) => [keyOf(row), row]));
    if (ticks().length) {
      // Rows neither come nor go under a choice that is being made. What is gone by now says so.
      for (const row of have.tBodies) {
        const now = rows.get(keyOf(row));
        if (now) update(row, now);
        row.classList.toggle("console-gone", !now);
      }
    } else {
      updateChildren(have, want);
      for (const part of [".action-counter", ".actions .all", ".actions .question a"]) {
        const [old, now] = [document, fresh].map((from) => from.querySelector(part));
        if (old && now) {
          old.textContent = now.textContent;
          Object.assign(old.dataset, now.dataset);
        }
      }
    }
    for (const tick of have.querySelectorAll("input.action-select")) {
      tick.closest("tr").classList.toggle("selected", tick.checked);
    }
    window.dispatchEvent(new Event("change")); // the buttons count anew
  }

  /* The admin's own script takes the rows to be those that were there at first. It is given all there are whenever
     it asks, and it counts anew when it hears "pageshow". */
  function takeNewRowsAlong() {
    const bind = window.Actions;
    if (!bind) return;
    window.Actions = (_, options) => {
      const all = () => [...options.parent.querySelectorAll("tr input.action-select")];
      bind(
        {
          get length() {
            return all().length;
          },
          forEach: (each) => all().forEach(each),
          [Symbol.iterator]: () => all().values(),
        },
        options,
      );
    };
    document.addEventListener("change", ({ target }) => {
      if (!target.matches?.("#result_list input.action-select")) return;
      target.closest("tr").classList.toggle("selected", target.checked);
      window.dispatchEvent(new Event("pageshow"));
    });
  }

  // ---- Refreshing ----

  function show(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (now) update(part, now);
    }
    for (const part of ["#console-headline", "#header-inner h1"]) {
      const [old, now] = [document, fresh].map((from) => from.querySelector(part));
      if (old && now) update(old, now);
    }
    const links = new Map([...fresh.querySelectorAll("#nav-sidebar-apps a")].map((a) => [a.getAttribute("href"), a]));
    for (const link of document.querySelectorAll("#nav-sidebar-apps a")) {
      const now = links.get(link.getAttribute("href"));
      if (now) update(link, now);
    }
    if (document.getElementById(LIST) && fresh.getElementById(LIST)) updateList(fresh);
    document.title = fresh.title;
  }

  function say(text, link) {
    notice.textContent = text;
    if (link) {
      const again = document.createElement("a");
      again.href = location.href;
      again.textContent = link;
      notice.append(" ", again);
    }
    notice.hidden = !text;
  }

  function sayHowOld() {
    if (!failures || ended) return;
    const time = new Date(shownAt).toISOString().slice(11, 19);
    const age = Math.round((Date.now() - shownAt) / 1000);
    say(`This is how it was at ${time} UTC, ${age} s ago: QuikTrade does not answer. It is asked again.`);
  }

  async function refresh() {
    clearTimeout(timer);
    if (document.hidden || ended || asking) return;
    asking = true;
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Console-Refresh": "1" },
        redirect: "manual",
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER),
      });
      if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
        ended = true;
        say("This is not kept up to date any more: your session has ended.", "Log in again");
        return;
      }
      if (!answer.ok) throw new Error(answer.status);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      shownAt = Date.now();
      failures = 0;
      say("");
    } catch {
      failures += 1;
      sayHowOld();
    } finally {
      asking = false;
      if (!ended) timer = setTimeout(refresh, Math.min(LONGEST_PAUSE, PAUSE * 2 ** failures));
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    takeNewRowsAlong(); // before the admin's script, which waits for the same event, looks at the rows
    if (!document.querySelector("[data-live]") && !document.getElementById(LIST)) return;
    notice = document.createElement("p");
    notice.className = "console-stale";
    notice.setAttribute("role", "status");
    notice.hidden = true;
    document.getElementById("main").append(notice);
    document.addEventListener("visibilitychange", refresh);
    setInterval(sayHowOld, 1000);
    timer = setTimeout(refresh, PAUSE);
  });
})();
