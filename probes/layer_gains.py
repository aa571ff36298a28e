"""What each layer of the base brings back alone, prompt by prompt: the measurement behind claim C3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from vlsurgery.probes.attribution_passes import lost_choices
from vlsurgery.probes.evaluation.completions import Counterparts, label
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.models.reuse import BlockInputs
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CompletionRecord, LayerGains, LayersResult
from vlsurgery.probes.scoring import refusal_log_odds
from vlsurgery.probes.targets import WORKING_MODALITIES, LostRefusal, evenly_spaced, part_somewhere, token_ids
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MAX_PROMPTS = 96
SOURCE = "base"


def layer_gains(
    alignment: Alignment,
    prompts: Sequence[Prompt],
    said: Sequence[CompletionRecord],
    progress: Progress = no_progress,
    loader: Loader = AS_FOUND,
) -> LayersResult:
    """The gain in refusal log-odds, in nats, of each layer of the base put alone into the adapted model.

    alignment: of at least base and adapted. said: judged completions of both on the `report` prompts among `prompts`;
    of those in `harmful`, the ones that the base refuses and the adapted model answers are measured, at most
    MAX_PROMPTS. Without any the result has a reason and no rows.
    """
    chat = loader.load(alignment.checkpoints["adapted"])
    lost = evenly_spaced(_lost(chat, prompts, said), MAX_PROMPTS)
    asked = {"prompts": [item.prompt.id for item in lost], "requests": [item.prompt.request for item in lost]}
    if not lost:
        return LayersResult(records=[], reason="the adapted model answers nothing that the base refuses", **asked)
    live = InMemoryMerge(chat, alignment.among(("adapted", SOURCE)), (SOURCE,))
    with keeping_pictures(chat):
        batches = lost_choices(chat, lost)
        start = refusal_log_odds(chat, batches)
        below = BlockInputs(chat, [batch.inputs for batch in batches])
        rows = []
        for layer, blocks in progress(list(_layers(live).items()), "putting single layers back"):
            with _transplanted(live, blocks, below):
                gains = refusal_log_odds(chat, batches) - start
            rows.append(LayerGains(layer=layer, gains=gains.tolist()))
    return LayersResult(records=rows, **asked)


def _lost(chat: ChatModel, prompts: Sequence[Prompt], said: Sequence[CompletionRecord]) -> list[LostRefusal]:
    """The harmful prompts of `report` whose refusal was lost, with what both models said in this model's tokens."""
    counterparts = Counterparts(said, SOURCE)
    adapted = {record.id: record for record in said if record.role == "adapted"}
    found = []
    for prompt in prompts:
        ours = adapted.get(prompt.id)
        if ours is None or prompt.set != "harmful" or prompt.modality not in WORKING_MODALITIES:
            continue
        theirs = counterparts.of(ours)
        if theirs is None or label(theirs) != "refused" or label(ours) != "complied":
            continue
        refusal, answer = (token_ids(chat, each.text, ()) for each in (theirs, ours))
        if part_somewhere(refusal, answer):
            found.append(LostRefusal(prompt, refusal, answer))
    return found


def _layers(live: InMemoryMerge) -> Mapping[int, list[str]]:
    """Layer -> its blocks, from below."""
    found: dict[int, list[str]] = {}
    for block in live.blocks:
        layer, _, part = block.partition(".")
        if part and layer.isdecimal():
            found.setdefault(int(layer), []).append(block)
    return dict(sorted(found.items()))


@contextmanager
def _transplanted(live: InMemoryMerge, blocks: Sequence[str], below: BlockInputs) -> Iterator[None]:
    """The model with these blocks of the base; what lies below them does not run again."""
    places = [live.layer_of(block) for block in blocks]
    known = [place for place in places if place is not None]
    with ExitStack() as stack:
        if below.works and len(known) == len(places):
            below.advance(min(known))
            stack.enter_context(below.beginning_there())
        stack.enter_context(live.at({block: {SOURCE: 1.0} for block in blocks}))
        yield
