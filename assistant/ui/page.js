/* The page's few lines of behaviour: report presses of our own buttons, remember the conversation
   in the address, follow citations, keep the newest words in sight. No library, no eval. */
(() => {
  "use strict";

  const AGES = 365 * 24 * 3600;
  const HOSTS = ".pl-turn, .pl-session, .pl-root, [data-host]";
  const BELOW = new URL("..", document.currentScript.src);
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  /* ---- talking to the server: one hidden text box, one JSON message at a time ---- */
  const outbox = [];
  let sending = false;

  function fill(box, value) {
    const kind = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, value);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function pump() {
    const box = find("#pl-bus textarea, #pl-bus input");
    sending = outbox.length > 0;
    if (!sending) return;
    if (!box) { setTimeout(pump, 120); return; }  /* a press may come before its box does */
    fill(box, JSON.stringify({ ...outbox.shift(), at: Date.now() + Math.random() }));
    box.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", bubbles: true, cancelable: true }));
    setTimeout(pump, 120);
  }

  function send(message) {
    outbox.push(message);
    if (!sending) pump();
  }

  const busy = () => find('[data-busy="yes"]') !== null;

  /* ---- the question box ---- */
  function say(text) {
    const box = find("#pl-composer textarea");
    if (!box || busy()) return;
    fill(box, text);
    setTimeout(() => find("#pl-composer .submit-button")?.click(), 60);
  }

  /* ---- forms inside our own markup ---- */
  function openForm(button, name) {
    const host = button.closest(HOSTS);
    const form = host && find(`[data-form="${name}"]`, host);
    if (!form) return;
    const show = form.hidden;
    all("[data-form]", host).forEach((other) => { other.hidden = true; });
    form.hidden = !show;
    if (show) find("textarea, input, button", form)?.focus();
  }

  /* Closing gives the focus back to the button that opened the form. */
  function closeForm(form) {
    form.hidden = true;
    const opener = find(`[data-action="open-${form.dataset.form}"]`, form.closest(HOSTS) || document);
    (opener || find("#pl-composer textarea"))?.focus();
  }

  function formOf(button) {
    const form = button.closest("[data-form]");
    const text = find("textarea, input[type=text]", form);
    return {
      text: text ? text.value : "",
      reasons: all("input[type=checkbox]:checked", form).map((box) => box.value),
    };
  }

  async function copy(button) {
    const text = find(".pl-text", button.closest(".pl-answer"));
    if (!text) return;
    const words = text.innerText.trim();
    try {
      await navigator.clipboard.writeText(words);
    } catch {
      const area = document.createElement("textarea");
      area.value = words;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = find(".pl-label", button);
    const before = label.textContent;
    label.textContent = find("[data-copied]")?.dataset.copied || before;
    setTimeout(() => { label.textContent = before; }, 1600);
    send({ action: "copy", turn: button.dataset.turn });
  }

  /* ---- signing out, and being signed out ---- */
  async function leave() {
    await ask(new URL("sign-out", BELOW), { method: "POST" });
    location.assign(new URL("sign-in", BELOW));
  }

  const ask = window.fetch.bind(window);
  window.fetch = async (...request) => {
    const answer = await ask(...request);
    if (answer.status === 401) location.reload();  /* the session is over: the server asks for a key */
    return answer;
  };

  /* ---- citations ---- */
  let wanted = "";

  function follow(id) {
    const card = document.getElementById(id);
    if (!card) return false;
    wanted = "";
    card.scrollIntoView({ behavior: "smooth", block: "nearest" });
    card.classList.remove("pl-flash");
    void card.offsetWidth;
    card.classList.add("pl-flash");
    card.focus({ preventScroll: true });
    return true;
  }

  /* ---- presses ---- */
  let pressed = null;

  document.addEventListener("click", (event) => {
    const cite = event.target.closest("a.pl-cite");
    if (cite) {
      event.preventDefault();
      const id = cite.getAttribute("href").slice(1);
      if (!follow(id)) { wanted = id; send({ action: "select", turn: cite.dataset.turn }); }
      return;
    }
    if (event.target.closest("#pl-new")) closeOnPhone();
    const button = event.target.closest("[data-action]");
    if (!button) return;
    const { action, turn, conversation, root, target, token, value, text } = button.dataset;
    if (action === "say") return say(text);
    if (action === "copy") return void copy(button);
    if (action === "sign-out") return void leave();
    if (action === "stop-reading") return send({ action });
    if (action.startsWith("open-")) return openForm(button, action.slice(5));
    if (action === "close-form") return closeForm(button.closest("[data-form]"));
    if (busy()) return;
    pressed = turn || target !== undefined || action.startsWith("show-") ? { action, turn, value } : null;
    if (action === "select") scrollSources = true;
    if (action === "open") closeOnPhone();
    send({ action, turn, conversation, root, target, token, value: value ? Number(value) : 0, ...(button.closest("[data-form]") ? formOf(button) : {}) });
  });

  document.addEventListener("keydown", (event) => {
    const form = event.target.closest?.("[data-form]");
    if (!form) return;
    if (event.key === "Escape") {
      closeForm(form);
    } else if (event.key === "Enter" && !event.isComposing && event.target.tagName === "INPUT" && event.target.type === "text") {
      event.preventDefault();
      find("[data-action]", form)?.click();
    }
  });

  /* ---- what the browser remembers: language and consent in cookies, the chat in the address ---- */
  function remember(name, value) {
    document.cookie = `${name}=${value}; path=/; max-age=${AGES}; samesite=strict`;
  }

  document.addEventListener("change", (event) => {
    if (event.target.closest("#pl-language")) remember("plumbline_language", event.target.value);
    if (event.target.closest("#pl-consent")) remember("plumbline_consent", event.target.checked ? "1" : "0");
  });

  function address(conversation, place) {
    const url = new URL(location.href);
    const wanted = { c: conversation, p: place === "train" ? place : "" };
    if (Object.keys(wanted).every((key) => (url.searchParams.get(key) || "") === wanted[key])) return;
    for (const key in wanted) {
      if (wanted[key]) url.searchParams.set(key, wanted[key]);
      else url.searchParams.delete(key);
    }
    url.hash = "";
    history.replaceState(null, "", url);
  }

  /* ---- after every change ---- */
  let stick = true;
  let scrollSources = false;
  let ready = false;
  let wasWriting = false;

  /* On a wide screen the conversation scrolls by itself; on a narrow one the page does, and the
     sources lie below it. `below` is how far the end of the conversation is out of sight. */
  function end() {
    const box = find("#pl-scroll");
    if (!box) return null;
    const own = getComputedStyle(box).overflowY !== "visible";
    const bottom = own ? box.clientHeight : innerHeight;
    const below = own ? box.scrollHeight - box.scrollTop - bottom : find("#pl-main").getBoundingClientRect().bottom - bottom;
    return { below, reach: () => { (own ? box : document.scrollingElement).scrollTop += Math.max(0, below); } };
  }

  document.addEventListener("scroll", () => {
    const place = end();
    if (place) stick = Math.abs(place.below) < 80;
  }, true);

  function restoreFocus() {
    if (!pressed || document.activeElement !== document.body) return;
    const { action, turn } = pressed;
    if (turn === undefined) return restoreTrain(action);
    const again = all(`[data-turn="${CSS.escape(turn)}"][data-action="${CSS.escape(action)}"]`)[0];
    again?.focus({ preventScroll: true });
  }

  /* On the page on training a button is often gone once it was pressed: go on where it led. */
  function restoreTrain(action) {
    const next = action === "judge" ? "#pl-blind .pl-question" : action.startsWith("show-") ? `[data-action="${action}"]` : "#none";
    const place = find(next) || find("#pl-train-page .pl-note");
    if (place) { pressed = null; place.focus(); }
  }

  /* What was unfolded stays so when its region is drawn again. */
  const unfolded = new Set();
  const place = (details) => `${details.closest('[id^="pl-"]')?.id} ${details.className}`;

  /* Seen at the press: its "toggle" comes later, when the region may be another already. */
  document.addEventListener("click", (event) => {
    const details = event.target.closest?.("summary")?.parentElement;
    if (details?.tagName !== "DETAILS") return;
    if (details.open) unfolded.delete(place(details));
    else unfolded.add(place(details));
  }, true);

  /* Gradio names these itself, in English or with the words of the button beside them. */
  function name(selector, words) {
    const element = find(selector);
    if (element && element.getAttribute("aria-label") !== words) element.setAttribute("aria-label", words);
  }

  function settle() {
    const root = find("#pl-history .pl-transcript");
    if (root) {
      if (!ready) { ready = true; document.documentElement.classList.add("pl-ready"); closeOnPhone(); }
      const lang = root.dataset.lang === "zh" ? "zh-CN" : "en";
      if (document.documentElement.lang !== lang) document.documentElement.lang = lang;
      address(root.dataset.conversation, find(".pl-places")?.dataset.place);
      name(".toggle-button", root.dataset.toggle);
      name("#pl-composer textarea", root.dataset.ask);
    }
    all("a.pl-cite[data-hint]").forEach((cite) => {
      cite.setAttribute("aria-label", cite.dataset.hint);
      cite.title = cite.dataset.hint;
      delete cite.dataset.hint;
    });
    all("details:not([open])").forEach((details) => { if (unfolded.has(place(details))) details.open = true; });
    const working = busy();
    document.body.classList.toggle("pl-busy", working);
    for (const id of ["pl-language", "pl-sessions", "pl-new"]) find(`#${id}`)?.toggleAttribute("inert", working);
    if (wanted) follow(wanted);
    if (scrollSources) { scrollSources = false; find("#pl-panel")?.scrollIntoView({ behavior: "smooth", block: "nearest" }); }
    restoreFocus();
    tell(find("#pl-run [data-said]")?.dataset.said || "");
    const writing = working && find("#pl-live .pl-turn") !== null;
    if (writing && !wasWriting) stick = true;
    if (stick && find(".pl-turn")) end()?.reach();
    announce(writing);
  }

  /* Screen readers hear an answer once, when it is complete. */
  const voice = document.createElement("div");
  voice.className = "pl-hidden";
  voice.setAttribute("aria-live", "polite");

  function speak(words) {
    if (!voice.isConnected) document.body.append(voice);
    voice.textContent = words;
  }

  function announce(writing) {
    if (wasWriting && !writing) {
      const words = all("#pl-live .pl-answer, #pl-history .pl-turn:last-child .pl-text").pop();
      speak(words ? words.innerText : "");
    }
    wasWriting = writing;
  }

  /* ... and of a run each new stage and its end, not every step. */
  let told = "";

  function tell(words) {
    if (words && told && words !== told) speak(words);
    told = words;
  }

  /* Gradio opens the sidebar over the whole of a small screen: start with the conversation. */
  function closeOnPhone() {
    if (matchMedia("(max-width: 768px)").matches) find("#pl-sidebar.open .toggle-button, .sidebar.open .toggle-button")?.click();
  }

  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; settle(); });
  }).observe(document.documentElement, { childList: true, subtree: true, characterData: true });

  setTimeout(() => document.documentElement.classList.add("pl-ready"), 4000);
})();
