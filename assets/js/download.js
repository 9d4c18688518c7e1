/** Saving a file of the hive: a plain link cannot send the key, so the file comes by fetch. */

import { errorOf, headers, here } from "./api.js";

const NAME = /filename="([\w.-]{1,120})"/;
const KEPT_MS = 60_000; // the browser reads it when it has asked where to

/** Saves what `path` answers, under the name the server gives it; returns that. @param {string} path */
export async function download(path) {
  const response = await fetch(here(path), {
    headers: headers(),
    credentials: "same-origin",
    cache: "no-store",
    redirect: "error",
  });
  if (!response.ok) throw await errorOf(response);
  const name = NAME.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "export";
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
  return name;
}
