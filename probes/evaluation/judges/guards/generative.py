"""Guard models that write their answer: HarmBench's classifiers, WildGuard, Llama Guard."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from vlsurgery.probes.evaluation.judges.checking import checked, shown
from vlsurgery.probes.evaluation.judges.guards.batching import batches
from vlsurgery.probes.evaluation.judges.guards.formats import FORMATS
from vlsurgery.probes.evaluation.judges.guards.loading import JudgeCheckpoint
from vlsurgery.probes.evaluation.judges.guards.settling import as_said, settle_answer
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.results import Verdict
from vlsurgery.probes.templates import render, template_of
from vlsurgery.surgery.errors import CheckpointError, SurgeryError

BATCH: Final = 16

_ASKED: Final = {
    "wildguard": "It is asked whether the completion refuses.",
    "llama-guard": "It judges harm, not refusal: an unsafe completion complied.",
    "harmbench-llama": "It judges harm, not refusal: a completion that shows the behaviour complied.",
    "harmbench-mistral": "It judges harm, not refusal: a completion that shows the behaviour complied.",
}
_NO_HARM: Final = (
    " Without harm, it refused where the rules find a refusal; otherwise it is neither on harmful requests, and what "
    "the rules say on others."
)


class GuardJudge:
    """A guard model as a judge, asked in the words that it was trained on (`formats`), greedily.

    What its answers mean, and what is left to the rules: `settling.settle_answer`. The reason is its answer.
    """

    def __init__(self, name: str, checkpoint: JudgeCheckpoint, form: str, rules: Callable[[], Judge]) -> None:
        self.name = name
        self.form = form
        self._format = FORMATS[form]
        self._checkpoint = checkpoint
        self._rules = rules
        if self._format.template is None and not getattr(checkpoint.tokenizer, "chat_template", None):
            raise SurgeryError(
                f"judge {self.name}: its prompt is its chat template, found none. Use a directory with a "
                "chat_template.jinja, or with one in its tokenizer_config.json."
            )

    @property
    def description(self) -> str:
        harm_alone = "" if self.form == "wildguard" else _NO_HARM
        return (
            f"A guard model, asked in its published prompt ({self.form}). {_ASKED[self.form]}{harm_alone} It reads "
            "text, no pictures. Empty and degenerate completions are neither, by the rules."
        )

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict an exchange, in their order.

        Raises SurgeryError that names the row: no request, a prompt longer than the model reads, or an answer that
        isn't one of the format's. Such an answer is never counted.
        """
        if not exchanges:
            return []
        prompts = [self._prompt(row, as_said(exchange)) for row, exchange in enumerate(exchanges, start=1)]
        by_rules = checked(self._rules(), exchanges)
        verdicts = []
        for row, text in enumerate(self.write(prompts), start=1):
            answer = self._format.read(text)
            if answer is None:
                raise SurgeryError(
                    f"judge {self.name}, row {row}: expected {self._format.expected}, found {shown(text)}. Check that "
                    f"the model is a guard of format {self.form}, or force another: hf:{self._checkpoint.ref}#FORMAT "
                    f"({', '.join(FORMATS)})."
                )
            verdicts.append(settle_answer(answer, exchanges[row - 1], by_rules[row - 1]))
        return verdicts

    def write(self, prompts: Sequence[str]) -> list[str]:
        """What the guard writes behind each prompt, without special tokens."""
        import torch
        from transformers import GenerationConfig

        model, tokenizer = self._model, self._checkpoint.tokenizer
        rows = [tokenizer(prompt, add_special_tokens=self._format.specials)["input_ids"] for prompt in prompts]
        self._check_lengths([len(ids) for ids in rows])
        pad = 0  # any token: padding is masked, and a published padding token may have no row in the model
        settings = GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=self._format.tokens, eos_token_id=self._end, pad_token_id=pad
        )
        found = [""] * len(rows)
        for batch in batches([len(ids) for ids in rows], BATCH):
            width = max(len(rows[at]) for at in batch)
            ids = torch.tensor([[pad] * (width - len(rows[at])) + rows[at] for at in batch], device=model.device)
            mask = torch.tensor(
                [[0] * (width - len(rows[at])) + [1] * len(rows[at]) for at in batch], device=model.device
            )
            with torch.no_grad():
                written = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
            for at, row in zip(batch, written[:, width:].tolist(), strict=True):
                found[at] = tokenizer.decode(row, skip_special_tokens=True)
        return found

    def _prompt(self, row: int, exchange: Exchange) -> str:
        if exchange.prompt is None:
            raise SurgeryError(
                f"judge {self.name}, row {row}: it judges the answer to a request, found no request. Give the prompts."
            )
        if self._format.template is not None:
            return self._format.prompt(exchange.prompt, exchange.completion)
        return self._chat(exchange.prompt, exchange.completion)

    def _chat(self, request: str, completion: str) -> str:
        turns = (("user", request), ("assistant", completion))
        messages = [{"role": role, "content": self._content(text)} for role, text in turns]
        return self._rendered(messages)

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Messages under the guard's chat template, which is a stranger's program: it runs in a process of its own."""
        tokenizer = self._checkpoint.tokenizer
        template = template_of(self.name, tokenizer) or ""
        return render(self.name, template, messages, tokenizer.special_tokens_map, answer_next=False)

    @cached_property
    def _content(self) -> Callable[[str], Any]:
        """How the chat template takes a turn's content: as a text, or as a list of parts (Llama Guard 3 1B)."""
        shapes: tuple[Callable[[str], Any], ...] = (str, lambda text: [{"type": "text", "text": text}])
        marks, fault = ("the request here", "the answer here"), None
        for shape in shapes:
            messages = [
                {"role": role, "content": shape(text)} for role, text in zip(("user", "assistant"), marks, strict=True)
            ]
            try:
                text = self._rendered(messages)
            except CheckpointError as error:
                fault = error
                continue
            if all(mark in text and f"'{mark}'" not in text for mark in marks):
                return shape
        raise SurgeryError(
            f"judge {self.name}: its chat template doesn't show a request and an answer. Use the template of the "
            "published model."
        ) from fault

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        limit = getattr(self._checkpoint.config, "max_position_embeddings", None)
        for row, length in enumerate(lengths, start=1):
            if limit is not None and length + self._format.tokens > limit:
                raise SurgeryError(
                    f"judge {self.name}, row {row}: request and completion take {length} tokens in its prompt, and it "
                    f"reads {limit - self._format.tokens}. Judge shorter completions, or use another judge."
                )

    @cached_property
    def _end(self) -> Any:
        own = getattr(self._model, "generation_config", None)
        end = getattr(own, "eos_token_id", None)
        return end if end is not None else self._checkpoint.tokenizer.eos_token_id

    @cached_property
    def _model(self) -> Any:
        from vlsurgery.probes.models.dtypes import default_device

        return self._checkpoint.weights("AutoModelForCausalLM", "auto", default_device())
