"""Tables keep the numbers of their results, fit 100 columns, and show what is absent as absent."""

import random
import re

import pytest
from hypothesis import given, settings, strategies as st
from rich.console import Console, RenderableType

from vlsurgery.cli.console import Console as ProgramConsole
from vlsurgery.cli.view.behaviour import behaviour_tables
from vlsurgery.cli.view.tables import (
    ABSENT,
    anatomy_tables,
    bar,
    coefficients_table,
    completeness_line,
    diff_table,
    layer_range,
    percent,
    probe_table,
    shape_table,
    significant,
    tradeoff_table,
    unmatched_line,
)
from vlsurgery.figures.wording import outcomes, percent as exact_percent
from vlsurgery.probes.results import (
    BehaviourResult,
    BehaviourRow,
    BlockGain,
    Completeness,
    CosineRow,
    Estimate,
    JudgeAgreement,
    JudgeUsed,
    ProbeResult,
    Rate,
    Selected,
    SeparationRow,
    TradeoffPoint,
    TradeoffResult,
)
from vlsurgery.surgery.results import (
    AnatomyResult,
    BetweenMetrics,
    DeltaMetrics,
    DiffResult,
    Null,
    Pair,
    PairMetrics,
    Summary,
    TowerAnatomy,
    TypedTensor,
    UnmatchedTensor,
)

BLOCKS = [f"{layer}.{half}" for layer in range(3) for half in ("attn", "mlp")]
ROLES = ("base", "graft", "adapted", "safety", "merged:uniform", "merged")
CELLS = [(set_, seen) for set_ in ("harmful", "jailbroken", "harmless", "borderline") for seen in ("text", "benign")]
CELLS += [("harmful", "blank"), ("harmful", "noise"), ("capability", "own"), ("capability", "text")]


def shown(*renderables: RenderableType, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        for each in renderables:
            console.print(each)
    return captured.get()


def delta(relative: float | None) -> DeltaMetrics:
    return DeltaMetrics(relative=relative, cosine=0.9, rms=0.1, max_abs=0.2, changed=1.0)


def summary(key: str, layer: int | None, vl: float | None, safety: float | None = None, **more: object) -> Summary:
    metrics = PairMetrics(
        vl=delta(vl),
        safety=None if safety is None else delta(safety),
        between=None if safety is None else BetweenMetrics(cosine=-0.321, sign_conflict=0.654),
    )
    return Summary(key=key, tower=more.get("tower", "text"), layer=layer, tensors=1, parameters=9, metrics=metrics)


def diff_result(safety: float | None) -> DiffResult:
    blocks = [summary(key, int(key[0]), 0.1 + i / 100, safety) for i, key in enumerate(BLOCKS)]
    return DiffResult(
        pairs=[],
        unmatched=[],
        layers=[summary(str(layer), layer, 0.1, safety) for layer in range(3)],
        blocks=[*blocks, summary("embed", None, None, safety)],
        towers=[summary("text", None, 0.1, safety), summary("vision", None, None, tower="vision")],
        verdict="",
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.00312, "0.00312"), (0.001, "0.00100"), (-0.0456, "-0.0456"), (0.5, "0.500"), (0.99996, "1.000"),
        (1.23456, "1.235"), (12.0, "12.000"), (0.0, "0.000"), (1.5e-9, "1.50e-09"), (None, ABSENT),
    ],
)  # fmt: skip
def test_small_changes_keep_three_digits(value: float | None, said: str) -> None:
    assert significant(value) == said


@given(st.floats(1e-12, 0.99, allow_nan=False), st.sampled_from([1, -1]))
def test_significant_digits_round_and_no_more(value: float, sign: int) -> None:
    assert float(significant(sign * value)) == pytest.approx(sign * value, rel=0.0051)


@pytest.mark.parametrize("safety", [None, 0.023])
def test_diff_shows_every_block(safety: float | None) -> None:
    result = diff_result(safety)
    text = shown(diff_table(result))
    for block in result.blocks:
        assert significant(block.metrics.vl.relative if block.metrics.vl else None) in text
    assert ("-0.321" in text) == ("0.654" in text) == ("0.023" in text) == (safety is not None)
    assert re.search(rf"embed +{ABSENT}", text)
    assert re.search(rf"vision +{ABSENT}", text)


def matrix(layer: int, rms: float, few: float, shape: tuple[int, int] = (4, 4)) -> Pair:
    def moved(few: float) -> DeltaMetrics:
        return delta(0.1).model_copy(
            update={"rms": rms, "energy": {"1": 0.0, "8": few, "64": 1.0}, "stable_rank": 3.25, "intruder_share": 0.625}
        )

    between = BetweenMetrics(cosine=-0.3, sign_conflict=0.6, subspace_left=0.25, subspace_right=0.5)
    return Pair(
        tower="text",
        layer=layer,
        component="mlp.up",
        names={"base": "up", "adapted": "up"},
        shape=list(shape),
        block=f"{layer}.mlp",
        dtype="bfloat16",
        metrics=PairMetrics(vl=moved(few), safety=moved(few / 2), between=between),
    )


def test_the_shape_of_the_deltas_is_weighed_by_their_size() -> None:
    pairs = [matrix(0, 1.0, 0.5), matrix(0, 2.0, 1.0), matrix(1, 1.0, 0.25)]
    (table,) = shape_table(diff_result(0.1).model_copy(update={"pairs": pairs}))
    text = shown(table)
    for figure in ("0.900", "0.450", "0.250", "0.125", "3.2", "0.625", "0.375"):
        assert figure in text
    assert max(map(len, text.splitlines())) <= 100
    assert shape_table(diff_result(0.1)) == []


def test_the_noise_in_a_cosine_stands_beside_it() -> None:
    result = diff_result(0.1)
    null = Null(mean=-0.123, low=-0.2, high=0.0)
    between = result.layers[0].metrics.between
    assert between is not None
    metrics = result.layers[0].metrics.model_copy(update={"between": between.model_copy(update={"cosine_null": null})})
    layers = [result.layers[0].model_copy(update={"metrics": metrics}), *result.layers[1:]]
    assert "-0.123" in shown(diff_table(result.model_copy(update={"layers": layers})))


def test_tensors_without_partner_are_counted_by_reason() -> None:
    lost = [UnmatchedTensor(role="adapted", name=f"t{i}", reason="no such tower") for i in range(3)]
    lost.append(UnmatchedTensor(role="base", name="u", reason="stale"))
    line = unmatched_line(lost)
    assert line == "4 tensors without partner: 3 of adapted (no such tower); 1 of base (stale)."


def probe_result() -> ProbeResult:
    estimate = Estimate(value=0.87, low=0.8, high=0.9, n=50)
    seen = {"base": ("text",), "adapted": ("text", "benign"), "graft": ("text", "benign"), "safety": ("text", "benign")}
    rows = [
        SeparationRow(
            role=role, modality=modality, position=position, layer=layer, norm=1.0, auroc=estimate, dprime=estimate
        )
        for role, modalities in seen.items()
        for modality in modalities
        for position in ("instruction", "-1")
        for layer in range(3)
    ]
    cosines = [
        CosineRow(
            role="adapted",
            modality="benign",
            reference="base/text",
            position="-1",
            layer=layer,
            cosine=0.71,
            split_half=1.0,
        )
        for layer in range(3)
    ]
    gains = [
        BlockGain(block=block, gain=value, share=None, cost=None, method=method)
        for method, offset in (("path", 0.0), ("endpoint", 5.0))
        for block, value in zip([*BLOCKS, "head"], [offset - 0.25 + i / 7 for i in range(7)], strict=True)
    ]
    return ProbeResult(
        rows=rows,
        cosines=cosines,
        selected=Selected(layer=1, position="-1", auroc=0.9, null=0.6),
        attribution=gains,
        transplants=[],
        completeness=Completeness(total=3.21, measured=3.0, error=0.07, points=6, rank_correlation=0.93),
        ceiling=None,
        notes=["nothing was lost"],
        verdict="",
    )


def test_probe_shows_separation_drift_and_the_path_map() -> None:
    result = probe_result()
    text = shown(probe_table(result))
    assert text.count("0.87") == 3 * 4
    assert text.count("0.71") == 3
    for gain in result.attribution:
        assert (f"{gain.gain:.2f}" in text) == (gain.method == "path")
    assert max(map(len, text.splitlines())) <= 100


def test_the_checks_of_the_map_are_in_words() -> None:
    line = completeness_line(probe_result())
    assert all(part in line for part in ("3.21", "3.00", "7%", "0.93"))
    assert "nothing was lost" in completeness_line(probe_result().model_copy(update={"completeness": None}))


rates = st.builds(
    lambda low, middle, high, n: Rate(rate=middle, low=low, high=high, n=2 * n, requests=n),
    st.floats(0, 0.3),
    st.floats(0.3, 0.6),
    st.floats(0.6, 1),
    st.integers(2, 999),
)


JUDGE = JudgeUsed(name="rules", tokens=64, description="")


def behaviour(rows: list[BehaviourRow], **more: object) -> BehaviourResult:
    return BehaviourResult(rows=rows, paired=[], judges=[JUDGE], looks=1, notes=[]).model_copy(update=more)


def behaviour_row(role: str, set_: str, modality: str, dice: random.Random, requests: int = 112) -> BehaviourRow:
    """A row of three random shares of 112 prompts, with lost and broken where they mean something."""
    first, second = sorted(dice.randint(0, 112) for _ in range(2))

    def rate(count: int) -> Rate:
        share = count / 112
        return Rate(rate=share, low=share * 0.9, high=share * 0.9 + 0.1, n=2 * requests, requests=requests)

    none = Rate(rate=None, reason="no such thing")
    harmful = set_ in ("harmful", "jailbroken")
    fated = harmful and role != "base"
    return BehaviourRow(
        role=role,
        set=set_,
        modality=modality,
        refused=rate(first),
        complied=rate(second - first),
        neither=rate(112 - second),
        right=none if harmful or set_ == "harmless" else rate(dice.randint(0, 112)),
        lost=rate(second - first) if fated else none,
        broken=rate(112 - second) if fated else none,
    )


def all_rows(seed: int, requests: int = 112) -> list[BehaviourRow]:
    dice = random.Random(seed)
    return [
        behaviour_row(role, *cell, dice, requests)
        for role in ROLES
        for cell in CELLS
        if role != "base" or cell[1] == "text"
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_behaviour_shows_three_numbers_of_every_role(seed: int) -> None:
    """And below them the interval of the one that decides; the base sees no pictures, and shows none."""
    rows = all_rows(seed)
    _, harmful, others, fates = behaviour_tables(behaviour(rows))
    text = shown(harmful, others, width=120)
    assert max(map(len, text.splitlines())) <= 120
    due = [cell for cell in CELLS if cell[0] in ("harmful", "jailbroken")]
    assert [table.row_count for table in (harmful, others, fates)] == [len(due), len(CELLS) - len(due), len(due)]
    found = re.findall(r"[\d.]+ / [\d.]+ / [\d.]+", text)
    assert sorted(found) == sorted(map(outcomes, rows))
    deciding = [row for row in rows if row.right.rate is not None]
    assert sorted(re.findall(r"(?<![\d–.])[\d.]+ \d+–\d+", text)) == sorted(
        percent(row.right).plain for row in deciding
    )
    pictured = [cell for cell in CELLS if cell[1] != "text"]
    assert len(re.findall(rf"(?<!\d){ABSENT}(?!\d)", text)) == len(pictured)
    assert text.count("224 prompts") == len(CELLS)
    assert "best uniform" in text


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_what_became_of_the_base_s_refusals_is_shown(seed: int) -> None:
    rows = [row for row in all_rows(seed) if row.lost.rate is not None]
    text = shown(behaviour_tables(behaviour(rows))[-1], width=120)
    found = re.findall(r"(?<![–\d.])[\d.]+ / [\d.]+(?![–\d.])", text)
    assert sorted(found) == sorted(
        f"{exact(row.lost.rate)} / {exact(row.broken.rate)}" for row in rows if row.lost.rate is not None
    )


def exact(share: float | None) -> str:
    assert share is not None
    return exact_percent(share).removesuffix("%")


def test_the_headline_stands_above_the_tables() -> None:
    text = shown(behaviour_tables(behaviour(all_rows(0)))[0], width=120)
    assert "refused / complied / neither" in text or "breaks on" in text


def test_of_one_request_nothing_is_shown() -> None:
    text = shown(*behaviour_tables(behaviour(all_rows(0, requests=1))), width=120)
    assert not re.search(r"[\d.]+ / [\d.]+|\d–\d|%.*\d+–", text)
    assert text.count("one request: nothing") == len(CELLS)
    assert "1 harmful request was asked, and it takes 30" in text


def test_every_judge_is_shown_with_their_agreement() -> None:
    first, second = all_rows(1), all_rows(2)
    agreement = JudgeAgreement(judges=("rules", "other"), n=50, agreement=0.9, kappa=0.8, differing=[("base", "p")])
    result = behaviour(first, other_judges={"other": second}, agreement=[agreement])
    *_, table, line = behaviour_tables(result)
    text = " ".join(shown(table, width=160).split())
    for row in (*first, *second):
        assert outcomes(row) in text
    assert "90% of 50 completions" in shown(line, width=160)


def test_a_corrected_rate_is_labelled() -> None:
    (row,) = [row for row in all_rows(0) if (row.role, row.set, row.modality) == ("adapted", "harmful", "text")]
    row = row.model_copy(update={"corrected": Rate(rate=0.75, low=0.7, high=0.8, n=224, requests=112)})
    assert "corr. 75 70–80" in shown(*behaviour_tables(behaviour([row])), width=120)


def test_a_benchmark_of_right_answers_alone_is_shown() -> None:
    none = Rate(rate=None, reason="no judge")
    row = all_rows(0)[-1].model_copy(update=dict.fromkeys(["refused", "complied", "neither"], none))
    row = row.model_copy(update={"right": Rate(rate=0.75, low=0.7, high=0.8, n=50, requests=50)})
    assert "75 70–80" in shown(*behaviour_tables(behaviour([row])), width=120)


def test_where_nothing_could_be_lost_the_reason_is_told() -> None:
    none = Rate(rate=None, reason="the base refuses 0 of 224: nothing could be lost")
    rows = [row.model_copy(update={"lost": none, "broken": none}) for row in all_rows(0)]
    text = " ".join(shown(*behaviour_tables(behaviour(rows)), width=120).split())
    assert "Lost and broken of 6 harmful sets: the base refuses 0 of 224: nothing could be lost." in text


@given(rates)
def test_a_rate_is_never_rounded_to_all_or_nothing(rate: Rate) -> None:
    assert rate.rate is not None
    share = percent(rate).plain.split()[0]
    assert (share == "100") == (rate.rate == 1)
    assert (share == "0") == (rate.rate == 0)
    assert abs(float(share) - 100 * rate.rate) <= 0.51


def test_an_absent_rate_is_a_dash() -> None:
    assert percent(None).plain == percent(Rate(rate=None, reason="no prompts")).plain == ABSENT


def tradeoff() -> TradeoffResult:
    def point(policy: str, chosen: bool, value: float) -> TradeoffPoint:
        coefficients = {block: {"base": value, "safety": value / 2} for block in BLOCKS} if chosen else None
        return TradeoffPoint(
            policy=policy,
            parameters={"base": value},
            coefficients=coefficients,
            refusal=value,
            capability=0.5,
            objective=0.5,
            forward_equivalents=12345,
            seconds=1.5,
            chosen=chosen,
        )

    points = [point("uniform", False, 0.11), point("uniform", True, 0.22), point("fit", True, 0.44)]
    return TradeoffResult(points=points, policy="fit", verdict="")


def test_coefficients_are_those_of_the_merge() -> None:
    text = shown(coefficients_table(tradeoff()))
    assert text.count("0.44") == text.count("0.22") == len(BLOCKS)
    assert "toward base" in text
    assert "toward safety" in text


def test_only_chosen_points_are_compared() -> None:
    text = shown(tradeoff_table(tradeoff()))
    assert "0.22" in text
    assert "0.44" in text
    assert "0.11" not in text
    assert "12,345" in text


def test_anatomy_shows_every_kind_of_tensor_once() -> None:
    tensors = [
        TypedTensor(
            name=f"l{layer}",
            tower="text",
            layer=layer,
            component="mlp.up",
            block=f"{layer}.mlp",
            shape=[7, 5],
            dtype="f",
        )
        for layer in (0, 1, 3)
    ]
    tower = TowerAnatomy(tower="text", layers=3, components=["mlp.up"], tensors=3, parameters=105)
    result = AnatomyResult(
        model_type="m",
        towers=[tower],
        tensors=tensors,
        parameters=105,
        bytes=420,
        dtypes={"f": 3},
        tied=True,
        quantised=None,
    )
    text = shown(*anatomy_tables(result))
    assert "0-1, 3" in text
    assert "7 x 5" in text
    assert text.count("mlp.up") == 1


@given(st.sets(st.integers(0, 200)))
def test_layer_ranges_name_exactly_their_layers(layers: set[int]) -> None:
    named: set[int] = set()
    for part in filter(None, layer_range(list(layers)).split(", ")):
        first, _, last = part.partition("-")
        named.update(range(int(first), int(last or first) + 1))
    assert named == layers


@given(st.floats(0, 5), st.floats(0.1, 5))
def test_bars_are_as_long_as_values_are_large(value: float, largest: float) -> None:
    drawn = bar(value, largest)
    assert len(drawn) == len(bar(None, largest))
    filled = drawn.count("█")
    share = min(1.0, value / largest)
    assert abs(filled - share * len(drawn)) <= 1
    assert (drawn.strip() == "") == (value == 0)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_loses_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    ProgramConsole().show(probe_table(probe_result()))
    text = capsys.readouterr().out
    assert "\x1b" in text, "as on a terminal"
    assert "…" not in text
    assert text.count("0.87") == 3 * 4
    assert text.count("0.71") == 3
