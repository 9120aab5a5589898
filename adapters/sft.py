"""Supervised fine-tuning with selection inside: a collator for TRL's `SFTTrainer` and transformers' `Trainer`.

    processor = AutoProcessor.from_pretrained("Qwen/Qwen2.5-VL-3B-Instruct")
    trainer = SFTTrainer(
        model, train_dataset=rows, processing_class=processor,
        data_collator=SelectingCollator(processor, "mini-policy", num_frames=16),
        args=SFTConfig(..., remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}),
    )

The frames of a question are those that `with_frame_selection` with the same settings gives the model when it answers.
Selection in the collator reads the videos anew in every epoch; for many epochs write the frames out first, with
`refocus-select batch --frames` and `refocus-select convert --to trl`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from refocus_select.errors import InputError
from refocus_select.weights import DEFAULT_SELECTOR

from .processor import with_frame_selection
from .questions import Query

IGNORED = -100  # label of tokens that nothing is learnt from, as in torch and transformers


class SelectingCollator:
    """Makes a batch of model inputs with labels from chats with videos.

    Args:
        processor: of a video model. A copy gets the selection; the caller's processor stays as it is.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video.
        completion_only_loss: learn the last answer of a chat only; otherwise everything but padding.
        max_length: longer examples are an error, because cutting would break a video in two; None for no limit.
        query: what counts as the question, see `with_frame_selection`; answers of the assistant are no part of it.
        **kwargs: more arguments of `with_frame_selection`.
    """

    def __init__(
        self,
        processor: Any,
        selector: Any = DEFAULT_SELECTOR,
        *,
        num_frames: int = 8,
        completion_only_loss: bool = True,
        max_length: int | None = None,
        query: Query = "last_user",
        **kwargs: Any,
    ) -> None:
        self.processor = with_frame_selection(
            copy.copy(processor), selector, num_frames=num_frames, query=query, **kwargs
        )
        self.completion_only_loss = completion_only_loss
        self.max_length = max_length

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate.

        Args:
            examples: each with `messages` that end with an answer of the assistant, or `prompt` and `completion`;
                videos are blocks of the messages.

        Returns:
            Inputs of the model, padded on the right, and `labels`.

        Raises:
            InputError: if an example has no answer, no question, or is too long; it names the example.
            VideoError: if a video cannot be read.
        """
        chats = [_chat_of(example, k) for k, example in enumerate(examples)]
        texts = [self.processor.apply_chat_template(chat, tokenize=False) for chat in chats]
        inputs = self.processor.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "right"},
        )
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        longest = max(range(len(lengths)), key=lambda k: lengths[k])
        if self.max_length is not None and lengths[longest] > self.max_length:
            raise InputError(
                f"example {longest + 1} has {lengths[longest]} tokens, more than max_length={self.max_length}: use "
                "fewer frames (num_frames), smaller ones, or a larger max_length"
            )
        labels = inputs["input_ids"].clone()
        labels[inputs["attention_mask"] == 0] = IGNORED
        if self.completion_only_loss:
            for k, (chat, text) in enumerate(zip(chats, texts, strict=True)):
                labels[k, : lengths[k] - self._answer_tokens(chat, text, k)] = IGNORED
        return {**inputs, "labels": labels}

    def _answer_tokens(self, chat: Sequence[Mapping[str, Any]], text: str, number: int) -> int:
        """How many tokens the answer has, and what the template writes behind it."""
        prompt = self.processor.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
        if not text.startswith(prompt):
            raise InputError(
                f"example {number + 1}: the chat template writes a prompt otherwise when an answer follows, so it is "
                "not known where the answer begins; use completion_only_loss=False"
            )
        return len(self.processor.tokenizer(text[len(prompt) :], add_special_tokens=False)["input_ids"])


def _chat_of(example: Mapping[str, Any], number: int) -> list[Any]:
    """One chat that ends with an answer."""
    messages = example.get("messages")
    if messages is None and "prompt" in example and "completion" in example:
        messages = [*_turns(example["prompt"], "user"), *_turns(example["completion"], "assistant")]
    if not messages:
        raise InputError(
            f"example {number + 1} has neither messages nor prompt and completion, but {', '.join(example)}"
        )
    if messages[-1].get("role") != "assistant" or len(messages) < 2:
        raise InputError(f"example {number + 1}: its last message is not an answer of the assistant")
    return [_without_gaps(m) for m in messages]


def _turns(value: Any, role: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": [{"type": "text", "text": value}]}]
    return list(value)


def _without_gaps(message: Mapping[str, Any]) -> dict[str, Any]:
    """`datasets` gives all blocks the same keys; those that are None say nothing. Text becomes a block."""
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = [{k: v for k, v in b.items() if v is not None} for b in content]
    return {"role": message["role"], "content": blocks}
