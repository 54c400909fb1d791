// What is wider than a screen scrolls in a box of its own, which has to be reached by keyboard too.
document$.subscribe(() => {
  for (const box of document.querySelectorAll('.md-typeset__scrollwrap, p:has(> img[src$="flow.svg"])')) {
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", box.querySelector("img") ? "picture" : "table");
  }
});
