/**
 * Talking to core. The session cookie alone is worth nothing: every request for data also carries the key
 * that login put into this origin's localStorage (cookies are shared by all ports of a host, storage is not).
 */

/** Where this hive begins on its origin: `/`, or below what a reverse proxy puts before it. */
export const BASE = new URL("../../", import.meta.url).pathname;

const KEY_NAME = nameHere("hive.key");
const READ_TIMEOUT_MS = 30_000;
const CHANGE_TIMEOUT_MS = 180_000; // a rebuild answers when it is done

/** A refusal or failure, with the server's own words. */
export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} message @param {string|null} [field] */
  constructor(status, code, message, field = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

/** A path of the hive (`/agents/alice/`) as the browser has to call it. @param {string} path */
export function here(path) {
  return BASE + path.replace(/^\//, "");
}

/** What this hive calls something in storage, which it may share with another one of this origin. @param {string} name */
export function nameHere(name) {
  return BASE === "/" ? name : `${name} ${BASE}`;
}

/** @returns {string} */
export function key() {
  return localStorage.getItem(KEY_NAME) ?? "";
}

/** @param {string|null} value */
export function keepKey(value) {
  if (value) localStorage.setItem(KEY_NAME, value);
  else localStorage.removeItem(KEY_NAME);
}

/** Leaves for the login page, which comes back here. */
export function goToLogin() {
  const back = encodeURIComponent(location.pathname + location.search + location.hash);
  const ended = key() ? "&ended=1" : ""; // it was logged in, and is so no more
  location.replace(here(`/login?return=${back}${ended}`));
}

/** A path of this hive to go to after login; anything else becomes the dashboard. @param {string|null} value */
export function safeReturn(value) {
  if (!value || !/^\/(?![/\\])/.test(value)) return BASE;
  const url = new URL(value, location.origin);
  const isOurs = url.origin === location.origin && url.pathname.startsWith(BASE);
  return isOurs && url.pathname !== here("/login") ? url.pathname + url.search + url.hash : BASE;
}

/** @param {Record<string, string>} [more] */
export function headers(more = {}) {
  return { "X-Hive-Key": key(), ...more };
}

/** @param {Response} response @returns {Promise<ApiError>} */
export async function errorOf(response) {
  const fallback = `the server answered ${response.status} ${response.statusText}`.trim();
  try {
    const { error } = await response.json();
    return new ApiError(response.status, String(error.code), String(error.message || fallback), error.field ?? null);
  } catch {
    return new ApiError(response.status, "failed", fallback);
  }
}

/** @param {unknown} error @returns {ApiError} */
function unreachable(error) {
  if (error instanceof ApiError) return error;
  const late = error instanceof DOMException && error.name === "TimeoutError";
  const said = late ? "hive-c0re did not answer in time" : "hive-c0re cannot be reached";
  return new ApiError(0, "unreachable", `${said}; the page keeps trying`);
}

/** @param {string} path @param {RequestInit} options @param {number} timeoutMs */
async function request(path, options, timeoutMs) {
  /** @type {Response} */
  let response;
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    response = await fetch(here(path), {
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal,
      ...options,
    });
    if (response.ok) return await response.json();
  } catch (error) {
    throw unreachable(error);
  }
  const error = await errorOf(response);
  if (response.status === 401 && path !== "/login") goToLogin();
  throw error;
}

/** @param {string} path @returns {Promise<any>} */
export function getJson(path) {
  return request(path, { headers: headers() }, READ_TIMEOUT_MS);
}

/**
 * @param {string} path
 * @param {Record<string, string>|URLSearchParams} [fields]
 * @returns {Promise<any>}
 */
export function postForm(path, fields = {}) {
  const body = new URLSearchParams(fields);
  return request(path, { method: "POST", body, headers: headers() }, CHANGE_TIMEOUT_MS);
}
