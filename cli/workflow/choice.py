"""The choice of coefficients: a whole one, or one that an earlier choice of the case already solved."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlsurgery.cli.workflow.engine import Job, Settings, StepOptions
from vlsurgery.cli.workflow.engines import engine_for_models
from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.results import ProbeResult, TargetsResult, TradeoffResult
from vlsurgery.probes.sources import toward_of
from vlsurgery.surgery.errors import LimitNotMet
from vlsurgery.surgery.results import DiffResult

if TYPE_CHECKING:
    from vlsurgery.probes.selection import Choosing

OF_A_PRICE = ("price", "frontier", "uses")  # settings that leave what a price is solved to as it is

EXPECTED_TRIALS = 2  # of a merge within limits


def choice_settings(job: Job) -> Settings:
    """What the choice depends on beside prompts and how models are run; what is default is left out."""
    options = job.options
    names = ("sparse", "extrapolate", "frontier", "price")
    more: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.limits is not None:
        more |= {"limits": options.limits.model_dump(mode="json"), "write_anyway": options.write_anyway}
    chosen = {name: value for name, value in more.items() if value}
    return {"policy": options.policy, "sources": list(job.sources), **chosen}


def options_of(done: Settings) -> StepOptions:
    """The options that a choice was made with, from its settings; those of none where there was none."""
    if "policy" not in done or "sources" not in done:
        return StepOptions()
    limits = Limits.model_validate(done["limits"]) if "limits" in done else None
    names = ("sparse", "extrapolate", "frontier", "price", "write_anyway")
    given = {name: done[name] for name in names if name in done}
    return StepOptions(policy=done["policy"], toward=toward_of(done["sources"]), limits=limits, **given)


def measured_beside(options: StepOptions) -> int:
    """How many merges a choice measures beside uniform ones and steps: at other prices, and within limits, about."""
    within = 0 if options.limits is None else EXPECTED_TRIALS
    return options.frontier + (options.price is not None) + within


def chosen_coefficients(job: Job, settings: Settings) -> TradeoffResult:
    """The choice. Raises LimitNotMet where no merge keeps the user's limits, and none is to be written then."""
    from vlsurgery.probes.known_price import at_known_price
    from vlsurgery.probes.selection import choose

    targets, options, loader = job.result(TargetsResult), job.options, job.loader("probe")
    before = _solved_before(job, settings)
    if before is not None and options.price is not None:
        job.say(f"coefficients: price {options.price:g} was solved before: it is measured, and nothing else")
        return at_known_price(job.alignment, job.prompts, targets, before, options.price, options.toward, loader)

    def warn(told: str) -> None:
        job.say(f"coefficients: {told}")

    with engine_for_models(options.ray, [job.checkpoints["adapted"]], options.running.device) as engine:
        how = replace(_how(job), engine=engine)
        result = choose(job.alignment, job.prompts, targets, how, job.progress, loader, warn)
    if options.limits is not None and not result.limits:
        job.say("coefficients: none of the limits can be predicted; they are decided after the merge")
    if result.missed is not None:
        if not options.write_anyway:
            raise LimitNotMet(
                f"no merge is found that keeps the limits: {result.missed}. Nothing was merged; change the limits, or "
                "merge the nearest one with --write-anyway."
            )
        job.say(f"coefficients: no merge is found that keeps the limits, the nearest one is written: {result.missed}")
    return result


def _how(job: Job) -> "Choosing":
    from vlsurgery.probes.selection import Choosing

    options = job.options
    changes = {
        block.key: block.metrics.vl.relative
        for block in job.result(DiffResult).blocks
        if block.tower == "text" and block.metrics.vl and block.metrics.vl.relative is not None
    }
    return Choosing(
        policy=options.policy,
        toward=options.toward,
        attribution=path_gains(job),
        weights=changes,
        gradients=job.case.path("gradients.safetensors"),
        sparse=options.sparse,
        frontier=options.frontier,
        price=options.price,
        limits=options.limits,
        extrapolate=options.extrapolate,
    )


def path_gains(job: Job) -> dict[str, float]:
    """Block -> nats of refusal that moving it to the base gives."""
    return {gain.block: gain.gain for gain in job.result(ProbeResult).attribution if gain.method == "path"}


def _solved_before(job: Job, settings: Settings) -> TradeoffResult | None:
    """An earlier choice, still as it was written and of the same settings, that holds the wanted price."""
    case, recorded = job.case, job.case.settings_of("coefficients")
    if recorded is None or job.options.price is None:
        return None
    if _but_for_price(recorded) != _but_for_price(settings):
        return None
    if settings.get("frontier", 0) not in (0, recorded.get("frontier", 0)):
        return None
    if not case.is_current("coefficients", recorded, ("diff", "probe")):
        return None
    before = case.result(TradeoffResult)
    return before if before is not None and before.at_price(job.options.price) else None


def _but_for_price(settings: Settings) -> Settings:
    return {name: value for name, value in settings.items() if name not in OF_A_PRICE}
