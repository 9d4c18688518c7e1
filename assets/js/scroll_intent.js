/** Which way a reader is about to scroll, told before the page has moved: a wheel, a finger, a key. */

const FINGER_PX = 6; // less is a tap
const KEYS = new Map([
  ["ArrowUp", "up"],
  ["PageUp", "up"],
  ["Home", "up"],
  ["ArrowDown", "down"],
  ["PageDown", "down"],
  ["End", "down"],
]);

/** @typedef {"up"|"down"} Way */

/** @param {HTMLElement} scroller @param {(way: Way) => void} listener */
export function onIntent(scroller, listener) {
  let fingerY = 0;
  const passive = { passive: true };
  scroller.addEventListener("wheel", ({ deltaY }) => deltaY !== 0 && listener(deltaY < 0 ? "up" : "down"), passive);
  scroller.addEventListener("touchstart", ({ touches }) => (fingerY = touches[0]?.clientY ?? 0), passive);
  scroller.addEventListener(
    "touchmove",
    ({ touches }) => {
      const moved = (touches[0]?.clientY ?? fingerY) - fingerY;
      if (Math.abs(moved) < FINGER_PX) return;
      fingerY += moved;
      listener(moved > 0 ? "up" : "down");
    },
    passive,
  );
  scroller.addEventListener("keydown", ({ key, target }) => {
    const way = target === scroller ? KEYS.get(key) : undefined;
    if (way) listener(/** @type {Way} */ (way));
  });
}
