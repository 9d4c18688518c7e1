/**
 * Dark, light, or as the system has it: chosen per browser, dark until then. This is a plain script and not
 * a module, so that it runs before the first paint and nothing flashes; it needs nothing of the page but the
 * root element. Other tabs follow at once.
 */

(() => {
  const NAME = "hive.theme";
  const THEMES = ["dark", "light", "auto"];
  const WORDS = /** @type {Record<string, string>} */ ({ dark: "dark", light: "light", auto: "as the system" });
  const GLYPHS = /** @type {Record<string, string>} */ ({ dark: "☾", light: "☀", auto: "◐" });

  /** What was chosen; a browser that keeps nothing stays dark. */
  function chosen() {
    try {
      const kept = localStorage.getItem(NAME) ?? "";
      return THEMES.includes(kept) ? kept : THEMES[0];
    } catch {
      return THEMES[0];
    }
  }

  let theme = chosen();

  /** @param {string} next */
  function choose(next) {
    try {
      localStorage.setItem(NAME, next);
    } catch {
      // Storage is refused: the choice holds for this page.
    }
    apply(next);
  }

  /** @param {string} next */
  function apply(next) {
    theme = next;
    document.documentElement.dataset.theme = next;
    const schemes = document.querySelector("meta[name=color-scheme]"); // what is painted before the styles come
    schemes?.setAttribute("content", next === "auto" ? "light dark" : next);
    if (document.readyState !== "loading") label();
  }

  const after = () => THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];

  /** The buttons' words, and the colour of a phone's browser bar: that of the page, as base.css has it. */
  function label() {
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.textContent = GLYPHS[theme];
      button.setAttribute("aria-label", `Theme: ${WORDS[theme]}. Change to ${WORDS[after()]}`);
      button.setAttribute("title", `Theme: ${WORDS[theme]} ( t )`);
    }
    const bar = document.querySelector("meta[name=theme-color]");
    bar?.setAttribute("content", getComputedStyle(document.documentElement).backgroundColor);
  }

  apply(theme);
  document.addEventListener("DOMContentLoaded", label);
  addEventListener("load", label); // the style sheets are here now
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", label);
  addEventListener("storage", (event) => {
    if (event.key === NAME) apply(chosen());
  });
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-theme-toggle]") : null;
    if (button) choose(after());
  });
})();
