"""The report in a browser: every control used, at three widths, in both themes, of 8 and of 80 layers; sizes and times.

Needs the packages playwright and kaleido and a Chromium: `make bench` makes an environment of its own for them. Prints
a table and fails at the first thing that isn't as it should be.

    python tests/benchmarks/report_page.py [--out DIR] [--layers 8,80]
"""

import argparse
import csv
import io
import itertools
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))

import conftest as make
from playwright.sync_api import Page, sync_playwright
from test_trajectory import departure, run

from vlsurgery.cli.view.pictures import check_pictures, write_pictures
from vlsurgery.figures import trajectory
from vlsurgery.figures.report import write_report
from vlsurgery.figures.sections import sections
from vlsurgery.probes.results import CompletionsResult

WIDTHS, THEMES = (390, 1000, 1600), ("light", "dark")
MAX_BYTES, MAX_DRAWING, MAX_OPENING = 6_000_000, 3.0, 2.0
PATIENCE = 600_000  # milliseconds; a busy machine is slow, not wrong
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


def layer_of(name: object) -> int | None:
    found = re.match(r"(\d+)\.", name) if isinstance(name, str) else None
    return int(found[1]) if found else None


def stretched(value: Any, layers: int) -> Any:
    """A result's data as if the model had so many layers: what there is of each layer is told of every third one."""
    if isinstance(value, dict):
        whole = {key: stretched(part, layers) for key, part in value.items()}
        few = {layer_of(key) for key in whole} - {None}
        if not few:
            return whole
        more = {re.sub(r"^\d+", str(at), key): part for at in range(layers) for key, part in whole.items()
                if layer_of(key) == at % (max(few) + 1)}  # fmt: skip
        return {key: part for key, part in whole.items() if layer_of(key) is None} | more
    if not isinstance(value, list):
        return value
    items = [stretched(item, layers) for item in value]
    if not all(isinstance(item, dict) for item in items):
        return items
    at_layer = [next((found for found in (item.get("layer"), layer_of(item.get("block"))) if isinstance(found, int)),
                     None) for item in items]  # fmt: skip
    known = {at for at in at_layer if at is not None}
    if not known:
        return items
    told = [item for item, at in zip(items, at_layer, strict=True) if at is None]
    for new in range(layers):
        for item, at in zip(items, at_layer, strict=True):
            if at == new % (max(known) + 1):
                told.append(moved(item, new))
    return told


def moved(item: dict, layer: int) -> dict:
    renamed = {
        key: re.sub(r"^\d+\.", f"{layer}.", item[key]) for key in ("block", "key") if isinstance(item.get(key), str)
    }
    return item | renamed | ({"layer": layer} if isinstance(item.get("layer"), int) else {})


def case(layers: int) -> tuple:
    """Results of every step of a model with so many layers."""
    tradeoff = make.priced_tradeoff().model_copy(update={"effects": make.explained_tradeoff().effects})
    results = (make.diff(), make.probe(), make.behaviour(), tradeoff)
    return tuple(type(each).model_validate(stretched(each.model_dump(by_alias=True), layers)) for each in results)


def completions(count: int) -> CompletionsResult:
    """About so many completions of 60 to 130 words, all different."""
    words = [f"{a}{b}{c}" for a, b, c in itertools.product("bdfgklmnprst", "aeiou", ("n", "r", "l", "t", "sh", "m"))]
    plain = make.completions(-(-count // 11)).records

    def more(at: int) -> str:
        return " ".join(words[(at * 37 + step * step * 11 + at * step) % len(words)] for step in range(60 + at % 70))

    return CompletionsResult(
        rows=[each.model_copy(update={"text": f"{each.text} {more(at)}"}) for at, each in enumerate(plain)]
    )


def check(what: str, true: bool) -> None:
    if not true:
        raise SystemExit(f"FAILED: {what}")


def download(page: Page, selector: str) -> bytes:
    with page.expect_download() as info:
        page.click(selector)  # as a person does: browsers stop a page that saves one file after another by itself
    return Path(info.value.path()).read_bytes()


def check_themes(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    drawn = "getComputedStyle(document.querySelector('.main-svg')).backgroundColor"
    seen = {}
    for name in ("light", "dark", "auto"):
        page.select_option("#theme", name)
        page.wait_for_function(f"{ground} === {drawn}")
        seen[name] = page.evaluate(ground)
    check("light and dark differ", seen["light"] != seen["dark"])
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ground} === '{seen['dark']}' && {drawn} === '{seen['dark']}'")
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{ground} === '{seen['light']}' && {drawn} === '{seen['light']}'")


def marked(page: Page) -> int:
    """How many figures show the layer that is picked."""
    return page.evaluate(
        "Array.from(document.querySelectorAll('.js-plotly-plot')).filter(p =>"
        " (p.layout.shapes || []).some(s => s.name === 'picked')).length"
    )


def check_layers(page: Page, layers: int) -> None:
    page.select_option("#pick", str(layers - 1))
    page.wait_for_function("document.getElementById('picked-said').textContent.startsWith('Marked in ')")
    said = int(page.inner_text("#picked-said").split()[2])
    page.wait_for_timeout(1500)
    check("a layer is marked in every figure that has it", marked(page) == said >= 4)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("[")
    check("the key [ goes a layer back", page.eval_on_selector("#pick", "e => e.value") == str(layers - 2))
    check("the address keeps it", f"layer={layers - 2}" in page.url)
    page.evaluate("document.getElementById('figure-safety-map').emit('plotly_click', {points: [{x: 1.2, y: 0,"
                  " xaxis: {_id: 'x'}, yaxis: {_id: 'y'}}]})")  # fmt: skip
    check("a click picks a block", page.eval_on_selector("#pick", "e => e.value") == "1.mlp")
    page.select_option("#pick", "")
    page.wait_for_timeout(1500)
    check("nothing is marked when no layer is picked", marked(page) == 0)


def check_figures(page: Page) -> None:
    for anchor in page.eval_on_selector_all("figure.plot", "all => all.map(f => f.dataset.plot)"):
        box = f"figure.plot[data-plot='{anchor}']"
        rows = int(page.text_content(f"{box} .numbers summary").split()[-2])
        table = list(csv.DictReader(io.StringIO(download(page, f"{box} .save-csv").decode())))
        check(f"{anchor}: the CSV has every row", len(table) == rows > 0)
        page.eval_on_selector(f"{box} .numbers", "details => { details.open = true; }")
        page.wait_for_function(f'document.querySelectorAll("{box} .numbers tbody tr").length === {rows}')
        page.eval_on_selector(f"{box} .numbers", "details => { details.open = false; }")
        for control in page.query_selector_all(f"{box} .control input, {box} .control select"):
            before = page.evaluate(drawn := f"JSON.stringify(document.getElementById('figure-{anchor}').data)")
            control.focus()
            at_end = control.evaluate("c => +c.value === (c.max === undefined ? c.options.length - 1 : +c.max)")
            page.keyboard.press("Home" if at_end else "End")
            page.wait_for_function(f"(before) => {drawn} !== before", arg=before)
            if command := page.query_selector(f"{box} .command code"):
                check(
                    f"{anchor}: the command follows", command.inner_text().startswith("vlsurgery merge --auto --price ")
                )
        check(f"{anchor}: it has a name and a table to read", page.evaluate(
            f"(d => document.getElementById(d.getAttribute('aria-labelledby')).textContent.length > 0 && "
            f"!!document.getElementById(d.getAttribute('aria-describedby')))(document.getElementById('figure-{anchor}'))"
        ))  # fmt: skip
    picture = download(page, "figure.plot[data-plot='safety-map'] .save-picture")
    check("the picture is a PNG", picture.startswith(b"\x89PNG") and len(picture) > 10_000)


def check_frontier(page: Page) -> None:
    page.evaluate("document.getElementById('figure-frontier').emit('plotly_click', {points: [{customdata: '8'}]})")
    page.wait_for_function("document.querySelector(\"[data-plot='price'] output\").textContent === '8'")
    check(
        "a click on the frontier shows its command", "--price 8" in page.inner_text("[data-plot='price'] .command code")
    )


def check_transcripts(page: Page) -> None:
    page.wait_for_selector("#transcripts[data-ready]")
    box, count = "#transcripts form", "#transcripts .count"

    def shown() -> int:
        return int(page.inner_text(count).split()[0])

    everything = shown()
    for name in ("flip", "set", "modality", "role", "verdict"):
        for option in page.eval_on_selector_all(
            f"{box} [name={name}] option", "all => all.map(o => [o.value, o.label])"
        ):
            page.select_option(f"{box} [name={name}]", option[0])
            check(f"{name}={option[0]} shows as many as it says", f"({shown()})" in option[1])
        page.select_option(f"{box} [name={name}]", "")
    check("all are back", shown() == everything)
    page.fill(f"{box} [name=text]", "thing 7 ")
    page.wait_for_function(f"document.querySelector('{count}').textContent.indexOf('{everything} of') !== 0")
    check("words are found", 0 < shown() < everything and "thing+7" in page.url)
    page.click("#transcripts .all")
    first = page.eval_on_selector_all("#transcripts article", "all => all.length")
    page.click("#transcripts .show-more")
    check("more are shown", page.eval_on_selector_all("#transcripts article", "all => all.length") > first)
    check("focus goes with them", page.evaluate("document.activeElement.tagName") == "ARTICLE")
    page.eval_on_selector("#said td a", "link => link.click()")
    page.wait_for_function("location.hash.includes('flip=')")
    wanted = int(page.inner_text("#said td a").split()[0])
    page.wait_for_function(f"document.querySelector('{count}').textContent.startsWith('{wanted} of')")
    target = page.get_attribute("#transcripts article .where a", "href")
    page.goto(page.url.partition("#")[0] + target, wait_until="commit")
    page.wait_for_function(f"document.querySelector('{count}').textContent.startsWith('1 of')")
    page.click("#transcripts .all")


def check_navigation(page: Page) -> None:
    for part in page.eval_on_selector_all("#sections a", "all => all.map(a => a.dataset.to)"):
        page.eval_on_selector(f"#sections a[data-to='{part}']", "link => link.click()")
        page.wait_for_function(f"document.querySelector('#sections a[aria-current]').dataset.to === '{part}' ||"
                               " innerHeight + scrollY >= document.documentElement.scrollHeight - 2")  # fmt: skip
    page.keyboard.press("Home")


def opened(page: Page, url: str) -> list[tuple[str, float, float]]:
    """What has happened after how many seconds by the clock, and how many of the page's own thread, which on a busy
    machine are fewer: the page can be read, its first figure is drawn, all are."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    began, told = time.perf_counter(), []

    def note(what: str) -> None:
        ran = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        told.append((what, time.perf_counter() - began, ran["TaskDuration"]))

    page.goto(url, wait_until="domcontentloaded")
    note("it can be read and used")
    page.wait_for_selector("figure.plot[data-drawn]", state="attached")
    note("its first figure is drawn")
    page.wait_for_function("!document.querySelector('figure.plot:not([data-drawn])')")
    note("all are drawn")
    return told


def check_print(page: Page, out: Path) -> None:
    """On paper the page is light, and as it was afterwards."""
    page.select_option("#theme", "dark")
    ground = "document.querySelector('.js-plotly-plot').layout.template.layout.paper_bgcolor"
    page.wait_for_function(f"{ground} !== '#ffffff'")
    dark = page.evaluate(ground)
    page.pdf(path=out / "printed.pdf", print_background=True)
    check("there is something on paper", (out / "printed.pdf").stat().st_size > 50_000)
    page.wait_for_function(f"{ground} === '{dark}'")
    page.select_option("#theme", "auto")


def check_run(page: Page, out: Path) -> None:
    """The page of a training run, which has the same figure in the same frame."""
    path = out / "trajectory.html"
    path.write_text(trajectory.page(run(departure(), rates=True)), encoding="utf-8")
    page.goto(path.absolute().as_uri(), wait_until="commit")
    page.wait_for_selector("figure.plot[data-drawn]", state="attached")
    check_themes(page)
    check("the run's numbers are all saved", b"log-odds" in download(page, ".save-csv"))
    page.screenshot(path=out / "trajectory.png", full_page=True)


def look(page: Page, out: Path, layers: int) -> None:
    for theme, width in itertools.product(THEMES, WIDTHS):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(1500)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        check(f"{layers} layers, {width} px, {theme}: the page does not scroll sideways", over <= 0)
        page.screenshot(path=out / f"{layers}-{theme}-{width}.png", full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/report_page"))
    parser.add_argument("--layers", default="8,80")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)

    results, said = case(80), completions(2000)
    began, busy = time.perf_counter(), time.process_time()
    shown = sections(*results)
    took, busy = time.perf_counter() - began, time.process_time() - busy
    print(f"drawing {sum(s.figure is not None for s in shown)} figures of 80 layers: {took:.1f} s, {busy:.1f} s of CPU")
    check(f"80 layers are drawn within {MAX_DRAWING:.0f} s of CPU", busy < MAX_DRAWING)
    write_report(asked.out / "32.html", *case(32), completions=said)
    size = (asked.out / "32.html").stat().st_size
    print(f"the page of 32 layers and {len(said.records)} completions: {size / 1e6:.2f} MB")
    check("it stays below 6 MB", size < MAX_BYTES)

    faults: list[str] = []
    late: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.browser, args=FLAGS, timeout=PATIENCE)
        for layers in map(int, asked.layers.split(",")):
            path = asked.out / f"{layers}.html"
            write_report(path, *case(layers), completions=said)
            page = browser.new_page(
                viewport={"width": 1400, "height": 1000}, color_scheme="light", accept_downloads=True
            )
            page.set_default_timeout(PATIENCE)
            page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("request", lambda r: faults.append(r.url) if r.url.startswith("http") else None)
            for what, clock, ran in opened(page, path.absolute().as_uri()):
                print(f"{layers} layers: {what} after {clock:.1f} s, {ran:.1f} s of its thread")
                if "can be read" in what and ran > MAX_OPENING:
                    late.append(f"{layers} layers: {ran:.1f} s until it can be read, expected {MAX_OPENING:.0f}")
            check_themes(page)
            check_layers(page, layers)
            check_figures(page)
            check_frontier(page)
            check_transcripts(page)
            check_navigation(page)
            check_print(page, asked.out)
            look(page, asked.out, layers)
            check_run(page, asked.out)
            page.close()
            check(f"no error and no request: {faults[:3]}", not faults)
            print(f"{layers} layers: every control works, no error, no request, {len(WIDTHS)} widths, both themes")
        browser.close()
    check_pictures(asked.out / "pictures", "png")
    print(f"pictures: {len(write_pictures(asked.out / 'pictures', 'png', shown[:2]))} drawn by kaleido")
    check(f"times: {late}", not late)


if __name__ == "__main__":
    main()
