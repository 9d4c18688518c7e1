/** The prompt below the terminal: messages to the agent, and slash commands. */

import { nameHere, postForm } from "./api.js";
import { commonStart, completions, helpText, isCommand, parseCommand } from "./commands.js";
import { one, setText } from "./dom.js";
import { localRow } from "./terminal.js";

const HISTORY_MAX = 100;

/**
 * @typedef {{
 *   base: string,
 *   terminal: import("./terminal.js").Terminal,
 *   models: () => string[],
 *   idle: () => boolean,
 *   changed: () => void,
 *   cleared: () => void,
 * }} Surroundings  `base` is the agent's path; `idle`: a message is taken up at once, and its turn shows it;
 *   `changed` is called when a command may have changed the agent's state
 */

export class Prompt {
  /** @param {Surroundings} around */
  constructor(around) {
    this.around = around;
    this.form = /** @type {HTMLFormElement} */ (one("#prompt"));
    this.field = /** @type {HTMLTextAreaElement} */ (one("#prompt-text"));
    this.button = /** @type {HTMLButtonElement} */ (one("#prompt-send"));
    this.suggestions = one("#suggestions");
    this.historyName = nameHere(`hive.history.${around.base}`);
    /** @type {string[]} */
    this.history = readHistory(this.historyName);
    this.at = this.history.length;
    this.unsent = "";
    this.busy = false;
    this.field.addEventListener("keydown", (event) => this.onKey(event));
    this.field.addEventListener("input", () => this.suggest());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
  }

  /** @param {string} text */
  set(text) {
    this.field.value = text;
    this.field.dispatchEvent(new Event("input")); // the draft and the suggestions follow
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      void this.submit();
    } else if (event.key === "Tab" && !event.shiftKey && this.complete()) {
      event.preventDefault();
    } else if (event.key === "ArrowUp" && this.onFirstLine() && this.recall(-1)) {
      event.preventDefault();
    } else if (event.key === "ArrowDown" && this.onLastLine() && this.recall(1)) {
      event.preventDefault();
    }
  }

  onFirstLine() {
    return !this.field.value.slice(0, this.field.selectionStart).includes("\n");
  }

  onLastLine() {
    return !this.field.value.slice(this.field.selectionEnd).includes("\n");
  }

  /** @param {number} step */
  recall(step) {
    const next = this.at + step;
    if (next < 0 || next > this.history.length || this.history.length === 0) return false;
    if (this.at === this.history.length) this.unsent = this.field.value;
    this.at = next;
    this.set(next === this.history.length ? this.unsent : this.history[next]);
    this.field.setSelectionRange(this.field.value.length, this.field.value.length);
    return true;
  }

  candidates() {
    return completions(this.field.value, this.around.models());
  }

  suggest() {
    const found = this.candidates();
    const exact = found.length === 1 && found[0].trim() === this.field.value.trim();
    setText(this.suggestions, found.length > 0 && !exact ? found.map((each) => each.trim()).join("   ") : "");
  }

  /** @returns {boolean} whether there was something to complete; if not, Tab moves on as everywhere */
  complete() {
    const found = this.candidates();
    if (found.length === 0) return false;
    const next = commonStart(found);
    if (next === this.field.value) return found.length > 1;
    this.set(next);
    return true;
  }

  /** @param {string} text */
  remember(text) {
    if (this.history.at(-1) !== text) this.history.push(text);
    this.history.splice(0, this.history.length - HISTORY_MAX);
    this.at = this.history.length;
    sessionStorage.setItem(this.historyName, JSON.stringify(this.history));
  }

  /** @param {string} mark @param {string} text @param {"local"|"fail"} [kind] */
  print(mark, text, kind) {
    this.around.terminal.add([localRow(mark, text, kind)]);
  }

  async submit() {
    const text = this.field.value.trim();
    if (!text || this.busy) return;
    this.occupy(true);
    this.remember(text);
    try {
      if (isCommand(text)) await this.command(text);
      else await this.say(text);
      // What was typed meanwhile stays.
      if (this.field.value.trim() === text) this.set("");
    } catch (error) {
      this.print("✗", error instanceof Error ? error.message : String(error), "fail");
    } finally {
      this.occupy(false);
    }
  }

  /** @param {boolean} busy */
  occupy(busy) {
    this.busy = busy;
    this.button.disabled = busy;
    this.button.toggleAttribute("data-busy", busy);
    this.button.setAttribute("aria-busy", String(busy));
  }

  /** @param {string} text */
  async say(text) {
    const waits = !this.around.idle();
    await postForm(`${this.around.base}send`, { body: text });
    if (waits) this.print("✉", `waits in the inbox: ${text}`);
  }

  /** @param {string} text */
  async command(text) {
    const { name, argument } = parseCommand(text);
    if (name !== "/clear") this.print("❯", text);
    switch (name) {
      case "/help":
        return this.print("·", helpText());
      case "/clear":
        return this.around.cleared();
      case "/cancel":
        return this.post("api/cancel", {});
      case "/compact":
        return this.post("api/compact", {});
      case "/new-session":
        return this.post("api/new-session", {});
      case "/model":
        if (!argument)
          return this.print(
            "·",
            `usage: /model <name>   known: ${this.around.models().join(", ") || "whatever the backend takes"}`,
          );
        return this.post("api/model", { model: argument });
      default:
        throw new Error(`unknown command ${name}; /help lists the commands`);
    }
  }

  /** What comes of it, the harness tells in the tail. @param {string} path @param {Record<string, string>} fields */
  async post(path, fields) {
    await postForm(this.around.base + path, fields);
    this.around.changed();
  }
}

/** @param {string} name @returns {string[]} */
function readHistory(name) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(name) ?? "[]");
    return Array.isArray(kept) ? kept.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}
