"""Text-classification checkpoints as judges."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from vlsurgery.probes.evaluation.judges.checking import checked
from vlsurgery.probes.evaluation.judges.guards.batching import batches
from vlsurgery.probes.evaluation.judges.guards.label_words import verdict_labels
from vlsurgery.probes.evaluation.judges.guards.loading import JudgeCheckpoint
from vlsurgery.probes.evaluation.judges.guards.settling import as_said, settle_label
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.results import Label, Verdict
from vlsurgery.surgery.errors import SurgeryError

BATCH: Final = 32

# Names of checkpoints -> what is known of them beside their labels.
_DIALOGUE: Final = ("minos",)  # NousResearch/Minos-v1 reads "<|user|>\n...\n<|assistant|>\n..."
_PUBLISHED: Final = {
    "distilroberta-base-rejection": (
        " Its authors report accuracy .989, precision .928 and recall .981 on their own held-out texts."
    ),
}


class SequenceClassifierJudge:
    """A text-classification checkpoint as a judge: the verdict is what its likeliest label means.

    It reads the completion alone, or request and completion where it was trained on both (Minos). What the rules find
    empty or degenerate is `neither`, whatever it says. The reason names its label and the label's probability.
    """

    def __init__(
        self, checkpoint: JudgeCheckpoint, labels: Mapping[str, str] | str | None, rules: Callable[[], Judge]
    ) -> None:
        self.name = f"hf:{checkpoint.ref}"
        self._checkpoint = checkpoint
        self._rules = rules
        self._names = _names(self.name, checkpoint.config)
        self._meanings: dict[str, Label] = verdict_labels(self.name, self._names, labels)
        origin = f"{checkpoint.ref} {checkpoint.origin or ''}".lower()
        self._dialogue = any(name in origin for name in _DIALOGUE)
        self._published = next((text for name, text in _PUBLISHED.items() if name in origin), "")

    @property
    def description(self) -> str:
        meanings = ", ".join(f"{name} is {verdict}" for name, verdict in self._meanings.items())
        reads = "the request and the completion" if self._dialogue else "the completion alone"
        return (
            f"A text-classification checkpoint that reads {reads}: {meanings}. Empty and degenerate completions are "
            f"neither, by the rules.{self._published}"
        )

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict an exchange, in their order. Raises SurgeryError as `JudgeCheckpoint.weights` does."""
        if not exchanges:
            return []
        texts = [self._text(row, as_said(exchange)) for row, exchange in enumerate(exchanges, start=1)]
        by_rules = checked(self._rules(), exchanges)
        return [
            settle_label(self._meanings[label], words, exchange, rules)
            for (label, words), exchange, rules in zip(self._labels(texts), exchanges, by_rules, strict=True)
        ]

    def _text(self, row: int, exchange: Exchange) -> str:
        if not self._dialogue:
            return exchange.completion
        if exchange.prompt is None:
            raise SurgeryError(f"judge {self.name}, row {row}: it reads the request too, found none. Give the prompts.")
        return f"<|user|>\n{exchange.prompt}\n<|assistant|>\n{exchange.completion}"

    def _labels(self, texts: Sequence[str]) -> list[tuple[str, str]]:
        """The likeliest label of each text, and words for the reason."""
        import torch

        tokenizer, model = self._checkpoint.tokenizer, self._model
        limit = _longest(tokenizer, model.config)
        lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
        found: list[tuple[str, str]] = [("", "")] * len(texts)
        for rows in batches([min(length, limit) for length in lengths], BATCH):
            inputs = tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=limit, return_tensors="pt"
            )
            with torch.no_grad():
                shares = model(**inputs.to(model.device)).logits.float().softmax(-1).cpu()
            for row, share in zip(rows, shares, strict=True):
                if not bool(share.isfinite().all()):
                    raise SurgeryError(f"judge {self.name}, row {row + 1}: its scores are not numbers. Use float32.")
                best = int(share.argmax())
                cut = f", of its first {limit} tokens" if lengths[row] > limit else ""
                found[row] = self._names[best], f"{self._names[best]} {float(share[best]):.3f}{cut}"
        return found

    @cached_property
    def _model(self) -> Any:
        import torch

        from vlsurgery.probes.models.dtypes import default_device

        model = self._checkpoint.weights("AutoModelForSequenceClassification", torch.float32, default_device())
        tokenizer = self._checkpoint.tokenizer
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise SurgeryError(f"judge {self.name}: its tokenizer has no token to pad with. Set its pad_token.")
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return model


def _names(judge: str, config: Any) -> list[str]:
    """The model's labels, by class. Raises SurgeryError where its classes don't exclude each other."""
    names = [str(config.id2label[at]) for at in sorted(config.id2label)]
    problem = getattr(config, "problem_type", None)
    if len(names) < 2 or problem not in (None, "single_label_classification"):
        raise SurgeryError(
            f"judge {judge}: expected two or more labels that exclude each other, found {', '.join(names) or 'none'}"
            f"{f' ({problem})' if problem else ''}. Use a classifier of single labels."
        )
    if len(set(names)) < len(names):
        raise SurgeryError(f"judge {judge}: two of its labels have one name: {', '.join(names)}. Mend its config.json.")
    return names


def _longest(tokenizer: Any, config: Any) -> int:
    """Tokens that the model can read. RoBERTa's positions begin behind its padding token."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if "roberta" in config.model_type:
        positions -= config.pad_token_id + 1
    return int(min(tokenizer.model_max_length, positions))
