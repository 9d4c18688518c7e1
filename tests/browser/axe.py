"""axe-core in a page: what it objects to, in the dark and in the light theme."""

from pathlib import Path

from tests.conftest import need

AXE = Path(__file__).parents[1] / "js" / "node_modules" / "axe-core" / "axe.min.js"

# Everything but what a theme changes is the same in both: in light, only those rules are run again.
# axe gives up on text over a gradient; without it, it judges.
# In place of label-content-name-mismatch: an eye-catching spelling (R3BU1LD) is said as the plain word.
JUDGE = """async (part) => {
  document.body.style.backgroundImage = 'none';
  const root = document.documentElement;
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const rules = { 'label-content-name-mismatch': { enabled: false }, 'target-size': { enabled: true } };
  const objections = async (options) => (await axe.run(part, { resultTypes: ['violations'], ...options }))
    .violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary, target }) =>
      `${root.dataset.theme}: ${id} at ${target}: ${html.slice(0, 160)} ${failureSummary}`));

  const letters = { 0: 'o', 1: 'i', 3: 'e', 4: 'a', 5: 's', 7: 't' };
  const plain = (text) => text.toLowerCase().replace(/[013457]/g, (digit) => letters[digit])
    .replace(/[^\\p{L}\\p{N}]+/gu, ' ').trim();
  const unnamed = [...document.querySelectorAll('button[aria-label], a[aria-label], summary[aria-label]')]
    .filter((each) => each.checkVisibility())
    .filter((each) => !plain(each.ariaLabel).includes(plain(each.innerText.split(' · ')[0])))
    .map((each) => `the name “${each.ariaLabel}” lacks what is seen: “${each.innerText}”`);

  const chosen = root.dataset.theme;
  root.dataset.theme = 'dark';
  const dark = await objections({ runOnly: { type: 'tag', values: tags }, rules });
  root.dataset.theme = 'light';
  const ofThemes = ['color-contrast', 'link-in-text-block'];
  const light = await objections({ runOnly: { type: 'rule', values: ofThemes } });
  root.dataset.theme = chosen;
  return [...unnamed, ...dark, ...light];
}"""


def source() -> str:
    """axe itself, to be evaluated in a page once."""
    need(AXE.is_file(), "axe-core is not installed; run `make js`")
    return AXE.read_text()
