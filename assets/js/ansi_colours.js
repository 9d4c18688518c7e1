/** The colours of a terminal: the palette of 256 and true ones, and whether a text can be read on them. */

/**
 * One colour: 0–255 is a place in the palette, from `TRUE` on it is `TRUE` plus red, green and blue.
 * @typedef {number} Colour
 */

export const TRUE = 0x1000000;
export const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

const LEAST_CONTRAST = 4.5; // WCAG 2.2, 1.4.3
const DARK = 0x000000; // with white, one of the two is read on every colour; softer ones are not on those between
const LIGHT = 0xffffff;
/** What the sixteen named colours are where they are a background: there, a theme's do not do. */
const NAMED = [
  0x45475a, 0xd2405f, 0x40a02b, 0xdf8e1d, 0x3670e8, 0x9b4fe0, 0x179299, 0xbac2de, 0x6c7086, 0xf38ba8, 0xa6e3a1,
  0xf9e2af, 0x89b4fa, 0xcba6f7, 0x94e2d5, 0xeff1f5,
];
const STEPS = [0, 95, 135, 175, 215, 255]; // of the palette's cube, as xterm has them

/** @param {number} red @param {number} green @param {number} blue @returns {number} */
const joined = (red, green, blue) => red * 0x10000 + green * 0x100 + blue;

/** @param {Colour} colour @returns {number} red, green and blue as one number */
export function rgbOf(colour) {
  if (colour >= TRUE) return colour - TRUE;
  if (colour < 16) return NAMED[colour];
  if (colour >= 232) return joined(8, 8, 8) + (colour - 232) * 0x0a0a0a;
  const place = colour - 16;
  return joined(STEPS[Math.floor(place / 36)], STEPS[Math.floor(place / 6) % 6], STEPS[place % 6]);
}

/** @param {number} rgb */
export function cssOf(rgb) {
  return `#${rgb.toString(16).padStart(6, "0")}`;
}

/** Relative luminance, as WCAG defines it. @param {number} rgb */
function luminance(rgb) {
  const [red, green, blue] = [rgb >> 16, (rgb >> 8) & 255, rgb & 255].map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** From 1, the same, to 21, black on white. @param {number} one @param {number} other */
export function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

/**
 * What to write with on `paper`: `ink` where it can be read, else what can. Nothing is hidden by writing it
 * in the colour of its background.
 * @param {number|null} ink @param {number} paper @returns {number}
 */
export function readable(ink, paper) {
  if (ink !== null && contrast(ink, paper) >= LEAST_CONTRAST) return ink;
  return contrast(DARK, paper) >= contrast(LIGHT, paper) ? DARK : LIGHT;
}
