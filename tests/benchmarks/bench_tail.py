"""How fast is an agent's live tail: with the 2,000 events it begins with, and after 50,000 live ones?

    python tests/benchmarks/bench_tail.py [--rounds 9] [--live 50000] [--slower 1] [--chromium PATH]

In Chromium, in one run, side by side: the past of 2,000 events (busy turns with every tool) from its JSON to
the painted page, and its peer, the same rows' texts appended as plain text, one element each, without marks,
folds, links or colours. Then the page is flooded: how its memory, its longest task and its frames fare, and
what searching costs. `--slower 4` slows the processor down, as on a phone. Goal: 300 ms for the past.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.browser, run as a script

from tests.browser.demo_hive import STATS, turn_of_alice
from tests.browser.mock_hive import COOKIE, KEY, MockHive, now_ms

PAST_EVENTS = 2000
BATCH_EVENTS = 250
GOAL_MS = 300.0

# One round: the past from its JSON to the frame after it was painted, and then its peer in the same place.
PAST = """async (text) => {
  const { Terminal } = await import('/static/js/terminal.js');
  const { Transcript } = await import('/static/js/transcript.js');
  const terminal = new Terminal();
  const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  const timed = async (work) => {
    terminal.list.replaceChildren();
    await painted();
    const began = performance.now();
    work();
    terminal.scroller.scrollTop = terminal.scroller.scrollHeight; // lays everything out
    const ready = performance.now() - began;
    await painted();
    return [ready, performance.now() - began];
  };
  const page = await timed(() => {
    const transcript = new Transcript();
    const { events } = JSON.parse(text);
    terminal.replace(events.map(event => ({ seq: event.seq, rows: transcript.rows(event) })));
  });
  const texts = [...terminal.blocks.rows()].map(row => row.textContent);
  const plain = await timed(() => {
    JSON.parse(text);
    const all = document.createDocumentFragment();
    for (const each of texts) {
      const row = document.createElement('div');
      row.className = 'words';
      row.textContent = each;
      all.append(row);
    }
    terminal.list.replaceChildren(all);
  });
  terminal.list.replaceChildren();
  return { rows: texts.length, page, plain };
}"""

WATCH = """() => {
  window.watched = { tasks: [], frames: [], last: 0 };
  new PerformanceObserver(list => watched.tasks.push(...list.getEntries().map(each => each.duration)))
    .observe({ type: 'longtask' });
  const frame = (now) => {
    if (watched.last) watched.frames.push(now - watched.last);
    watched.last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


# The newest is there, and so is all that came before it. Cheap, as it is asked while frames are counted.
ALL_SHOWN = """() => {
  const list = document.querySelector('#rows');
  const last = list.lastElementChild?.lastElementChild;
  return last?.textContent.includes('the last of all') && !list.hasAttribute('aria-busy');
}"""


def tasks_cpu_ms(trace: bytes) -> list[float]:
    """Processor time of each task of the page's thread: what it takes itself, whatever else is at work."""
    entries = json.loads(trace)["traceEvents"]
    names = [each for each in entries if each["name"] == "thread_name"]
    pages = {(each["pid"], each["tid"]) for each in names if each["args"]["name"] == "CrRendererMain"}
    tasks = [each for each in entries if each["name"].endswith("RunTask") and "tdur" in each]
    return [each["tdur"] / 1000 for each in tasks if (each["pid"], each["tid"]) in pages]


def events() -> list[tuple[str, dict[str, Any]]]:
    """One turn: its start, its stream, its end."""
    start = {"from": "hm1nd", "body": "Write the release notes.\nAsk carol for the changes.", "unread": 1}
    end = {"ok": True, "outcome": "ok", "note": "", "stats": STATS}
    return [("turn_start", start), *(("stream", line) for line in turn_of_alice()), ("turn_end", end)]


def fill(hive: MockHive, amount: int) -> None:
    turn, harness = events(), hive.harnesses["hm1nd"]
    for number in range(amount):
        harness.add(*turn[number % len(turn)])


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


def past(page: Page, hive: MockHive, rounds: int) -> dict[str, float]:
    """Medians of `rounds` rounds, after one that is not counted."""
    fill(hive, PAST_EVENTS)
    harness = hive.harnesses["hm1nd"]
    text = json.dumps({"events": harness.events, "seq": len(harness.events)})
    harness.events.clear()
    page.goto("/agents/hm1nd/")
    page.wait_for_selector("#connection[data-kind=live]")
    results = [page.evaluate(PAST, text) for _ in range(rounds + 1)][1:]
    told: dict[str, float] = {"rows": results[0]["rows"], "json_kib": len(text) / 1024}
    for name in ("page", "plain"):
        for at, what in enumerate(("ready", "painted")):
            told[f"{name}_{what}_ms"] = statistics.median(result[name][at] for result in results)
    return told | {"ratio": told["page_painted_ms"] / told["plain_painted_ms"]}


def memory(page: Page, session: CDPSession) -> dict[str, float]:
    session.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    rows = page.locator("#rows .row").count()
    return {"rows": rows, "nodes": metrics["Nodes"], "heap_mib": metrics["JSHeapUsedSize"] / 2**20}


def opening(page: Page, hive: MockHive) -> float:
    """From asking for the page to its 2,000 events, in milliseconds."""
    fill(hive, PAST_EVENTS)
    began = time.perf_counter()
    page.goto("/agents/hm1nd/")
    page.wait_for_function("() => document.querySelectorAll('#rows .row').length > 1000", polling="raf")
    return (time.perf_counter() - began) * 1000


def flood(page: Page, hive: MockHive, amount: int) -> dict[str, float]:
    """`amount` live events as fast as the page takes them; then memory, long tasks and frames."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    before = memory(page, session)
    page.evaluate(WATCH)
    browser = page.context.browser
    assert browser is not None
    browser.start_tracing(page=page, categories=["-*", "toplevel"])
    began = time.perf_counter()
    for first in range(0, amount, BATCH_EVENTS):
        hive.do(partial(fill, hive, BATCH_EVENTS))
        if first % (BATCH_EVENTS * 8) == 0:
            page.evaluate("() => new Promise(requestAnimationFrame)")
    hive.live("hm1nd", "note", {"text": "the last of all"})
    page.wait_for_function(ALL_SHOWN, timeout=600_000)
    seconds = time.perf_counter() - began
    watched = page.evaluate("() => watched")
    tasks = tasks_cpu_ms(browser.stop_tracing())
    after = memory(page, session)
    return {
        "events_per_second": amount / seconds,
        "longest_task_ms": max(watched["tasks"], default=0.0),
        "longest_task_cpu_ms": max(tasks),
        "cpu_ms_per_1000_events": sum(tasks) / amount * 1000,
        "long_tasks_per_1000_events": len(watched["tasks"]) / amount * 1000,
        "frame_p50_ms": percentile(watched["frames"], 0.5),
        "frame_p99_ms": percentile(watched["frames"], 0.99),
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }


SEARCH = """async (needle) => {
  const { Haystack } = await import('/static/js/hits.js');
  const rows = [...document.querySelectorAll('#rows .row')];
  const haystack = new Haystack();
  const times = [];
  for (let round = 0; round < 3; round += 1) {
    const began = performance.now();
    haystack.find(rows, needle);
    times.push(performance.now() - began);
  }
  return { first: times[0], again: times[2] };
}"""

SCROLL = """async () => {
  const terminal = document.querySelector('#terminal');
  const gaps = [];
  let last = 0;
  for (let step = 0; step < 120; step += 1) {
    const now = await new Promise(requestAnimationFrame);
    if (last) gaps.push(now - last);
    last = now;
    terminal.scrollTop -= 700;
  }
  return gaps;
}"""


def main() -> None:
    options = argparse.ArgumentParser(description="How fast is an agent's live tail?")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--live", type=int, default=50_000, help="how many events arrive live")
    options.add_argument("--slower", type=float, default=1.0, help="slow the processor down by this")
    options.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    chosen = options.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen.chromium, args=["--no-sandbox"])
        report: dict[str, float] = {"began_ms": now_ms()}
        for measure in ("past", "flood"):
            hive = MockHive()
            url = hive.start()
            state: Any = {
                "cookies": [],
                "origins": [{"origin": url, "localStorage": [{"name": "hive.key", "value": KEY}]}],
            }
            context = browser.new_context(base_url=url, storage_state=state)
            context.add_cookies([{"name": "hive_session", "value": COOKIE, "url": url}])
            page = context.new_page()
            session = context.new_cdp_session(page)
            session.send("Emulation.setCPUThrottlingRate", {"rate": chosen.slower})
            if measure == "past":
                report |= past(page, hive, chosen.rounds)
            else:
                report["opening_ms"] = opening(page, hive)
                report |= flood(page, hive, chosen.live)
                found = page.evaluate(SEARCH, "parser")
                report |= {"search_first_ms": found["first"], "search_again_ms": found["again"]}
                gaps = page.evaluate(SCROLL)
                report |= {"scroll_frame_p50_ms": percentile(gaps, 0.5), "scroll_frame_max_ms": max(gaps)}
            context.close()
            hive.stop()
        browser.close()
    del report["began_ms"]
    table = Table("figure", "value", title=f"An agent's live tail, goal {GOAL_MS:g} ms for the past")
    for name, value in report.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}" if value < 100 else f"{value:,.0f}")
    Console().print(table)
    print(json.dumps({name: round(value, 2) for name, value in report.items()}))


if __name__ == "__main__":
    main()
