/** Long work in short pieces: what the reader does, and the frames that show it, come in between. */

export const SLICE_MS = 8; // half of a frame at 60 a second: the rest is for layout and paint
const HIDDEN_SLICE_MS = 40; // in the background, where nobody waits for a frame
const HIDDEN_PAUSE_MS = 250;

/** A question that is answered with yes as soon as a piece of work has had its time. @returns {() => boolean} */
export function slice() {
  const endMs = performance.now() + (document.hidden ? HIDDEN_SLICE_MS : SLICE_MS);
  return () => performance.now() >= endMs;
}

/** Lets the page do what else is due, and goes on then. @returns {Promise<void>} */
export function giveWay() {
  if ("scheduler" in globalThis) return scheduler.postTask(() => {}, { priority: "user-visible" });
  return new Promise((resolve) => setTimeout(resolve));
}

/** Before the next frame; in the background none are drawn. @param {() => void} work */
export function nextFrame(work) {
  if (document.hidden) setTimeout(work, HIDDEN_PAUSE_MS);
  else requestAnimationFrame(work);
}
