// One listener for every panel: a button or field with data-do sends its data-* attributes to Python.
// The values are read at once, so that redrawing the panel a moment later cannot change what is sent.
const facts = (field) => ({ ...field.dataset, value: field.value ?? "" });
const pause = 200;
const waiting = new Map();

const send = (field, values) => {
  clearTimeout(waiting.get(field));
  waiting.delete(field);
  trigger("input", values);
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || button.disabled) return;
  if (!button.dataset.sure || confirm(button.dataset.sure)) trigger(button.dataset.event ?? "click", facts(button));
});

element.addEventListener("input", (event) => {
  const field = event.target.closest("input[type=range][data-do]");
  if (!field) return;
  const values = facts(field);
  const name = field.dataset.names.split("|")[Math.round(field.value * 5) - 1];
  // The attribute follows the slider, because panels are compared by attribute when they are redrawn.
  field.setAttribute("value", field.value);
  field.setAttribute("aria-valuetext", name);
  field.style.setProperty("--part", `${((field.value - 0.2) / 0.8) * 100}%`);
  field.nextElementSibling.textContent = name;
  clearTimeout(waiting.get(field));
  waiting.set(field, setTimeout(() => send(field, values), pause));
});

element.addEventListener("change", (event) => {
  const field = event.target.closest("input[data-do]:not([type=range])");
  if (field) send(field, facts(field));
});

element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input[data-do]:not([type=range])")) event.target.blur();
});

// A button's data-key presses it, and Ctrl with its data-keys, unless the user is typing.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.repeat || event.target.closest("input:not([type=range]), textarea")) return;
  const name = event.ctrlKey || event.metaKey ? "data-keys" : "data-key";
  const button = element.querySelector(`button[${name}="${CSS.escape(event.key)}"]`);
  if (!button?.offsetParent) return;
  event.preventDefault();
  button.click();
});

// In a row of a list, keys decide on it: K keeps it and goes on, B goes back, D drops it, M moves it.
let next = null;
const rows = () => [...element.querySelectorAll("li[data-term]")];
const visit = (place) => rows()[Math.max(0, Math.min(place, rows().length - 1))]?.focus();
element.addEventListener("keydown", (event) => {
  const row = event.target.closest("li[data-term]");
  if (!row || event.target.matches("input:not([type=range])") || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = rows().indexOf(row);
  const press = { d: "drop", m: "move" }[event.key];
  if (event.key === "k") visit(place + 1);
  if (event.key === "b") visit(place - 1);
  if (press) {
    next = place;
    row.querySelector(`button[data-do=${press}]`).click();
  }
});
watch("value", () => {
  if (next !== null) visit(next);
  next = null;
});

// The chat scrolls to its newest entry, but stays in place while changes are accepted one by one.
const log = element.closest(".log");
const count = () => element.querySelectorAll(".chat > *").length;
let shown = 0;
const follow = () => {
  if (count() !== shown) log.scrollTop = log.scrollHeight;
  shown = count();
};
if (log) watch("value", follow);
