// What belongs to the page as a whole: its address, the way back, its title, notifications, and what is new.
const NAME = "CRCE Studio";
const tabs = () => [...document.querySelectorAll("[role=tab]")].filter((tab) => TABS.includes(tab.textContent.trim()));
const TABS = ["Start", "Curate", "Erase", "Compare", "Publish"];
const selected = () => tabs().find((tab) => tab.ariaSelected === "true")?.textContent.trim().toLowerCase();

// The address names the tab, and in Curate the concept: reloading, bookmarks and the way back lead there again.
const address = (facts) => {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(facts)) value ? query.set(name, value) : query.delete(name);
  return `${location.pathname}?${query}`;
};
let here = null;
let goal = new URLSearchParams(location.search).get("tab");
const find = (name) => tabs().find((tab) => tab.textContent.trim().toLowerCase() === name);
const follow = () => {
  if (goal && tabs().length) {
    const tab = find(goal);
    goal = null;
    if (tab?.ariaSelected === "false") return tab.click();
  }
  const tab = selected();
  const concept = document.querySelector(".shelves button[aria-current=true]")?.dataset.slug;
  if (!tab) return;
  // The first tab that is seen is where the page was opened, or where its address has led.
  const go = here === null || here === tab ? "replaceState" : "pushState";
  if (here !== tab) tellNews();
  here = tab;
  const there = address({ tab, concept: tab === "curate" ? concept : null, run: tab === "compare" ? run() : null });
  if (there !== location.pathname + location.search) history[go](null, "", there);
};
const run = () => document.querySelector("[data-compared]")?.dataset.compared;
addEventListener("popstate", () => {
  const tab = new URLSearchParams(location.search).get("tab") ?? "start";
  here = tab;
  find(tab)?.click();
});

// The title says what has ended while the user looked elsewhere; a notification does, if they asked for one.
let before = {};
const news = () => {
  const runs = JSON.parse(document.querySelector("[data-runs]")?.dataset.runs ?? "[]");
  const busy = runs.find((run) => run.state === "running");
  for (const run of runs) {
    const ended = ["running", "queued"].includes(before[run.id]) && ["done", "failed"].includes(run.state);
    if (ended) tell(`${run.state === "done" ? "✓" : "✗"} ${run.title} ${run.state}`);
  }
  before = Object.fromEntries(runs.map((run) => [run.id, run.state]));
  if (!told) document.title = busy ? `${busy.title} · ${NAME}` : NAME;
};
let told = false;
const tell = (text) => {
  told = true;
  document.title = text;
  if (localStorage.getItem("crce-notify") && Notification.permission === "granted") new Notification(NAME, { body: text });
};
for (const event of ["pointerdown", "keydown"]) addEventListener(event, () => (told = false), true);

const mark = () => {
  for (const button of document.querySelectorAll("[data-notify]")) {
    const on = String(Boolean(localStorage.getItem("crce-notify")));
    if (button.ariaPressed !== on) button.ariaPressed = on;
  }
};
addEventListener("click", async (event) => {
  if (!event.target.closest?.("[data-notify]")) return;
  if (localStorage.getItem("crce-notify")) localStorage.removeItem("crce-notify");
  else if ((await Notification.requestPermission()) === "granted") localStorage.setItem("crce-notify", "yes");
  mark();
});

// Every two seconds the page asks whether anything is new. What it shows is read anew by the parts that can be seen.
const tellNews = () => dispatchEvent(new Event("crce-news"));
const askNews = async () => {
  try {
    window.crceNews = await (await fetch(`${location.pathname.replace(/\/$/, "")}/news`)).json();
    tellNews();
  } catch {
    // The app is away for a moment.
  }
  setTimeout(askNews, 2000);
};
askNews();

// The field that holds what the line beside Start complains of.
const markWrong = () => {
  const wrong = document.querySelector("[data-wrong]")?.dataset.wrong;
  for (const field of document.querySelectorAll("[id^=field-] :is(input, textarea)")) {
    const now = String(field.closest("[id^=field-]").id === `field-${wrong}`);
    if (field.ariaInvalid !== now) field.ariaInvalid = now;
  }
};

let waiting = false;
new MutationObserver(() => {
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    follow();
    news();
    mark();
    markWrong();
  }, 100);
}).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["aria-selected"] });
