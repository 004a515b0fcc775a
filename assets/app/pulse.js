// Tells Python that there is something new for this part of the page, once it can be seen: see page.js and app/news.py.
const { part } = element.querySelector("[data-part]").dataset;
let known = null;
const look = () => {
  const mark = window.crceNews?.[part];
  if (!mark || mark === known || !element.checkVisibility()) return;
  known = mark;
  trigger("tick");
};
addEventListener("crce-news", look);
look();
