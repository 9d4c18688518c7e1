/** The slash commands of the prompt. */

/** @typedef {{name: string, argument: string, help: string}} Command */

/** @type {Command[]} */
export const COMMANDS = [
  { name: "/help", argument: "", help: "list these commands" },
  { name: "/clear", argument: "", help: "empty this terminal; the history stays" },
  { name: "/cancel", argument: "", help: "stop the running turn; the session stays usable" },
  { name: "/compact", argument: "", help: "summarise the context to make room" },
  { name: "/model", argument: "<name>", help: "think with another model from the next turn on" },
  { name: "/new-session", argument: "", help: "forget the conversation and begin anew; notes stay" },
];

/** A line that begins with a slash and a letter is meant as a command; `/etc/hosts is …` is not.
 * @param {string} text */
export function isCommand(text) {
  return /^\/[a-z-]*(\s|$)/i.test(text);
}

/** @param {string} text @returns {{name: string, argument: string}} */
export function parseCommand(text) {
  const [name, ...rest] = text.trim().split(/\s+/);
  return { name: name.toLowerCase(), argument: rest.join(" ") };
}

/** What the typed text could become. @param {string} text @param {string[]} models @returns {string[]} */
export function completions(text, models) {
  if (/\n/.test(text) || !text.startsWith("/")) return [];
  const model = /^\/model\s+(\S*)$/.exec(text);
  if (model) return models.filter((name) => name.startsWith(model[1])).map((name) => `/model ${name}`);
  return COMMANDS.filter(({ name }) => name.startsWith(text.toLowerCase())).map(({ name, argument }) =>
    argument ? `${name} ` : name,
  );
}

/** The longest beginning that all share. @param {string[]} texts */
export function commonStart(texts) {
  return texts.reduce((start, text) => {
    let length = 0;
    while (length < start.length && start[length] === text[length]) length += 1;
    return start.slice(0, length);
  });
}

export function helpText() {
  const width = Math.max(...COMMANDS.map(({ name, argument }) => `${name} ${argument}`.length));
  const lines = COMMANDS.map(({ name, argument, help }) => `${`${name} ${argument}`.padEnd(width + 2)}${help}`);
  return [
    ...lines,
    "",
    "Anything else is sent to the agent. Enter sends, Shift+Enter makes a new line, Tab completes, ↑ recalls.",
  ].join("\n");
}
