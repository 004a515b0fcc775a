// One listener for every page: a button or field with data-do tells Python what was done, with its data-* facts.
// The values are taken when the hand moves, so a page drawn anew a moment later cannot change what is sent.
const facts = (field) => ({ ...field.dataset, value: field.value ?? "" });
const pause = 200;
const waiting = new Map();

const send = (field, told) => {
  clearTimeout(waiting.get(field));
  waiting.delete(field);
  trigger("input", told);
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || button.disabled) return;
  if (!button.dataset.sure || confirm(button.dataset.sure)) trigger(button.dataset.event ?? "click", facts(button));
});

element.addEventListener("input", (event) => {
  const field = event.target.closest("input[type=range][data-do]");
  if (!field) return;
  const told = facts(field);
  const name = field.dataset.names.split("|")[Math.round(field.value * 5) - 1];
  // The attribute follows the hand: pages are compared by attribute when they are drawn anew.
  field.setAttribute("value", field.value);
  field.setAttribute("aria-valuetext", name);
  field.style.setProperty("--part", `${((field.value - 0.2) / 0.8) * 100}%`);
  field.nextElementSibling.textContent = name;
  clearTimeout(waiting.get(field));
  waiting.set(field, setTimeout(() => send(field, told), pause));
});

element.addEventListener("change", (event) => {
  const field = event.target.closest("input[data-do]:not([type=range])");
  if (field) send(field, facts(field));
});

element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input[data-do]:not([type=range])")) event.target.blur();
});

// Ctrl with the key that a button names presses it, unless someone writes.
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.target.closest("input:not([type=range]), textarea")) return;
  const button = element.querySelector(`button[data-keys="${CSS.escape(event.key)}"]`);
  if (!button?.offsetParent) return;
  event.preventDefault();
  button.click();
});

// A talk shows its newest entry, but stays where it is while one is being taken apart.
const log = element.closest(".log");
const said = () => element.querySelectorAll(".talk > *").length;
let heard = 0;
const follow = () => {
  if (said() !== heard) log.scrollTop = log.scrollHeight;
  heard = said();
};
if (log) watch("value", follow);
