"""Uses every control of `vlsurgery explore` in headless Chromium: on light and dark paper, at three widths, on a case
as it is and on one of 80 layers, with a prompt typed and text that would be markup.

Prints a line a check, and ends with an error where the console complains, the page scrolls sideways, or an answer is
not there. --pictures DIR keeps a screenshot of each.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from browser import Tab, browser
from safetensors.numpy import save_file

from vlsurgery.cli.explore.session import open_page
from vlsurgery.cli.options import Running
from vlsurgery.probes.results import Estimate, ProbeResult, SeparationRow

WIDTHS = (390, 800, 1400)
LAYERS, HIDDEN = 80, 64
MARKUP = "<img src=x onerror=document.title='struck'> i want to kill the cat"
READY = "document.querySelectorAll('#directions .js-plotly-plot').length === 2 && !document.querySelector('.busy')"


def deep_case(case: Path, folder: Path) -> Path:
    """The case with directions of 80 layers in place of its own."""
    shutil.copytree(case, folder, ignore=shutil.ignore_patterns("merged", "*.html"))
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((LAYERS, HIDDEN)).cumsum(0)
    sides = [("base", "text"), ("adapted", "text"), ("adapted", "benign")]
    vectors = {
        f"{role}/{modality}/{position}": (shared + 3 * generator.standard_normal((LAYERS, HIDDEN))).astype(np.float32)
        for role, modality in sides
        for position in ("instruction", "-1")
    }
    save_file(vectors, folder / "directions.safetensors")
    rows = [
        SeparationRow(role=role, modality=modality, position=position, layer=layer, norm=1.0,
                      auroc=Estimate(value=0.5 + 0.006 * layer, low=0.45, high=1.0, n=60),
                      dprime=Estimate(value=1.0, n=60))
        for role, modality in sides for position in ("instruction", "-1") for layer in range(LAYERS)
    ]  # fmt: skip
    probe = ProbeResult.load(case / "probe.json").model_copy(update={"records": rows, "cosines": []})
    probe.save(folder / "probe.json")
    return folder


def choose(tab: Tab, name: str, value: str) -> None:
    """Choose a value as a user does, so that the page hears of it."""
    tab.run(f"""(() => {{ const box = document.getElementById({name!r}); box.value = {value!r};
        for (const kind of ['input', 'change']) {{ box.dispatchEvent(new Event(kind, {{bubbles: true}})); }} }})()""")


def told(name: str, is_so: object) -> None:
    print(f"{'ok  ' if is_so else 'FAIL'} {name}", flush=True)
    if not is_so:
        raise SystemExit(1)


def use_directions(tab: Tab) -> None:
    """Every selection changes the figures; a click on the map chooses its layer."""
    title = "document.querySelector('#directions h3').textContent"
    options = "[...document.getElementById('{}').options].map((each) => each.value)"
    before = tab.run(title)
    for name in ("pair-second", "pair-position"):
        for value in tab.run(options.format(name)):
            choose(tab, name, value)
            tab.wait(READY)
    choose(tab, "pair-second", tab.run(options.format("pair-first"))[-1])
    choose(tab, "pair-layer", "1")
    tab.wait(f"({READY}) && {title}.includes('layer 1 ')")
    told("selections change the figures", tab.run(title) != before)
    tab.run("document.querySelector('#directions .plot').emit('plotly_click', {points: [{x: 0, y: 2}]})")
    tab.wait(f"({READY}) && {title}.includes('layer 2 ')")
    told("a click on the map chooses a layer", tab.run("document.getElementById('pair-layer').value") == "2")
    tab.run("document.querySelector('#directions details').open = true")
    rows = tab.run("document.querySelectorAll('#directions tr').length")
    told(f"the numbers stand in a table of {rows - 1} layers", rows > 2)
    tab.run("document.querySelector('#directions .save').click()")


def use_completions(tab: Tab) -> None:
    """Every filter narrows the list; the pages go on and back."""
    count = "document.querySelector('#said .count').textContent"
    every = tab.run(count)
    tab.run("document.getElementById('said-after').click()")
    tab.wait(f"{count} !== {every!r} && !document.querySelector('.busy')")
    tab.run("document.getElementById('said-before').click()")
    tab.wait(f"{count} === {every!r}")
    choose(tab, "said-role", "base")
    for name, value in (("said-set", "harmful"), ("said-verdict", "complied")):
        before = tab.run(count)
        choose(tab, name, value)
        tab.wait(f"{count} !== {before!r} && !document.querySelector('.busy')")
    for name, value in (("said-role", ""), ("said-verdict", ""), ("said-flip-first", "base")):
        choose(tab, name, value)
    choose(tab, "said-flip-second", "adapted")
    tab.wait("!document.querySelector('.busy')")
    choose(tab, "said-grep", "the")
    time.sleep(0.4)
    tab.wait("!document.querySelector('.busy')")
    told(f"filters narrow completions: {every} to {tab.run(count)}", tab.run(count) != every)
    tab.run("document.querySelector('#said .save').click()")
    choose(tab, "said-grep", "no completion says this")
    tab.wait(f"{count}.startsWith('No prompt')")
    choose(tab, "said-grep", "")
    tab.wait("document.querySelectorAll('#said article').length > 0")
    tab.run("document.querySelector('#said article button').click()")
    told("a prompt is taken over", tab.run("document.getElementById('typed-text').value").strip())


def use_prompt(tab: Tab) -> None:
    """A typed prompt is read by every role that is ticked, and what is markup is shown as text."""
    choose(tab, "typed-text", MARKUP)
    tab.run(
        "document.querySelectorAll('#typed-roles input:not(:disabled)').forEach((each) => { each.checked = true; })"
    )
    roles = tab.run("document.querySelectorAll('#typed-roles input:checked').length")
    began = time.perf_counter()
    tab.run("document.getElementById('typed-read').click()")
    tab.wait("document.querySelector('#typed .count').textContent.includes('s')")
    tab.wait("!document.getElementById('typed-read').disabled", 600)
    fault = tab.run("document.querySelector('#typed .fault').textContent")
    told(f"no fault: {fault!r}", not fault)
    voices = tab.run("document.querySelectorAll('#typed .voice').length")
    told(f"{voices} of {roles} roles answered in {time.perf_counter() - began:.1f} s", voices == roles > 1)
    told("projections and lens are drawn", tab.run("document.querySelectorAll('#typed .js-plotly-plot').length") == 2)
    told("markup is text", tab.run("document.title") == "vlsurgery explore")
    choose(tab, "typed-text", "   ")
    tab.run("document.getElementById('typed-read').click()")
    told("an empty prompt is said", "Type a prompt" in tab.run("document.querySelector('#typed .fault').textContent"))


def look(tab: Tab, address: str, name: str, pictures: Path | None) -> None:
    """Opens at once, fits every width, on both papers, by the browser's wish and by the page's own control."""
    for width in WIDTHS:
        for dark in (False, True):
            tab.show(width, 900, dark)
            began = time.perf_counter()
            tab.open(address)
            tab.wait(f"document.readyState === 'complete' && typeof Plotly === 'object' && {READY}")
            seconds = time.perf_counter() - began
            wide = tab.run("document.documentElement.scrollWidth")
            paper = tab.run("getComputedStyle(document.body).backgroundColor")
            told(f"{name}, {width} px, {paper}: {wide} px wide, shown in {seconds:.1f} s", wide <= width)
            if pictures:
                tab.picture(pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    choose(tab, "theme", "light")
    told("the page's own choice of paper wins", tab.run("getComputedStyle(document.body).backgroundColor") != paper)


def serve_and_use(case: Path, name: str, pictures: Path | None, reads: bool) -> None:
    with open_page(case, Running(), 0) as server, browser() as tab:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        look(tab, server.guard.address, name, pictures)
        use_directions(tab)
        use_completions(tab)
        if reads:
            use_prompt(tab)
            if pictures:
                tab.show(1400, 900, False)
                tab.picture(pictures / f"{name}-read.png")
                tab.show(390, 900, True)
                tab.picture(pictures / f"{name}-read-390-dark.png")
        told(f"{name}: the console complains of nothing: {tab.complaints}", not tab.complaints)
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="?", type=Path, help="A finished case. Default: the demo's, made now.")
    parser.add_argument("--pictures", type=Path, help="Keep screenshots in this folder.")
    asked = parser.parse_args()
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        case = asked.case or Path(folder) / "case"
        if asked.case is None:
            subprocess.run([sys.executable, "-m", "vlsurgery.cli.main", "demo", "--case", case, "--quiet"], check=True)
        serve_and_use(case, "case", asked.pictures, reads=True)
        serve_and_use(deep_case(case, Path(folder) / "deep"), "deep", asked.pictures, reads=False)


if __name__ == "__main__":
    main()
