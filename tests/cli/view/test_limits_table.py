import io

from rich.console import Console

from vlsurgery.cli.view.limits import limits_tables
from vlsurgery.probes.evaluation.limits import LimitRow, LimitsResult

ROWS = [
    LimitRow(
        set="harmful", modality="benign", limit="complied_at_most", bound=0.05,
        rate=0.0, low=0.0, high=0.0511, requests=72, needed=1, reason="the rate meets it, its interval might not",
    ),
    LimitRow(set="jailbroken", modality=None, limit="refused_at_least", bound=0.9, reason="not asked"),
    LimitRow(
        set="capability", modality="own", limit="right_drop_at_most", bound=0.03,
        rate=-0.01, low=-0.04, high=0.02, requests=200, met=True,
    ),
    LimitRow(set="capability", modality="own", limit="kl_at_most", bound=0.1, rate=0.4321, requests=200, met=False),
]  # fmt: skip


def printed(width):
    result = LimitsResult(records=ROWS, role="merged", bind="interval", verdict="may not ship")
    console = Console(width=width, file=io.StringIO())
    for part in limits_tables(result):
        console.print(part)
    return console.file.getvalue()


def test_a_limit_has_a_line_with_what_was_measured_and_the_verdict_comes_last():
    text = printed(200)
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines() if line.strip()}
    harmful = lines["harmful · ordinary picture"]
    assert all(part in harmful for part in ("complied", "0% (0–6%)", "≤ 5%", "72", "open", "1"))
    assert "≥ 90%" in lines["jailbroken"]
    assert "−1.0 points (−4.0 to +2.0)" in text
    assert "0.432" in text
    assert "≤ 0.100" in text
    assert "jailbroken, refused: not decided, not asked." in text
    assert text.strip().splitlines()[-1] == "may not ship"


def test_it_fits_100_columns():
    assert "…" not in printed(100)
    assert max(map(len, printed(100).splitlines())) <= 100
