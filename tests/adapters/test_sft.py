"""Fine-tuning with selection in the collator: the frames of inference, labels of the answer only, a loss that falls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from refocus_select.adapters import last_selection, with_frame_selection
from refocus_select.adapters.sft import IGNORED, SelectingCollator
from refocus_select.errors import InputError, VideoOpenError

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, QUESTION, NamedFrames
from .models import build
from .test_families import ASK


def example(video: str, question: str = QUESTION, answer: str = "Grey squares.") -> dict[str, Any]:
    return {"messages": [*chat_about(video, question), {"role": "assistant", "content": answer}]}


def collator(model_type: str = "qwen2_5_vl", **kwargs: Any) -> SelectingCollator:
    return SelectingCollator(tiny.BUILDERS[model_type](), NamedFrames(), num_frames=6, **kwargs)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm"])
def test_frames_are_those_of_inference_and_labels_the_answer(model_type: str, film: str) -> None:
    collate = collator(model_type)
    batch = collate([example(film), example(film, "What is in 1, 2, 3, 4, 5 and 6?", "Six, of all shades.")])
    assert last_selection(collate.processor, 0).indices.tolist() == list(CHOSEN)
    tokenizer = collate.processor.tokenizer
    learnt = [tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
    end = "<end_of_utterance>" if model_type == "smolvlm" else "<|im_end|>"
    assert [text.strip() for text in learnt] == [f"Grey squares.{end}", f"Six, of all shades.{end}"]
    assert torch.equal(batch["labels"][batch["labels"] != IGNORED], batch["input_ids"][batch["labels"] != IGNORED])

    processor = with_frame_selection(tiny.BUILDERS[model_type](), NamedFrames(), num_frames=6)
    asked = processor.apply_chat_template(chat_about(film), **ASK)
    length = asked["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][0, :length], asked["input_ids"][0])
    pixels = next(k for k in asked if k.startswith("pixel_values"))
    assert torch.equal(batch[pixels][: len(asked[pixels])], asked[pixels])


def test_rows_of_datasets_and_the_whole_chat(film: str) -> None:
    """Prompt and completion; keys that are None; loss on everything."""
    prompt = [{"role": "user", "content": [
        {"type": "video", "video": film, "text": None}, {"type": "text", "video": None, "text": QUESTION},
    ]}]  # fmt: skip
    rows = [{"prompt": prompt, "completion": "Grey squares."}]
    assert torch.equal(collator()(rows)["input_ids"], collator()([example(film)])["input_ids"])
    batch = collator(completion_only_loss=False)(rows)
    assert torch.equal(batch["labels"], batch["input_ids"])


def test_the_callers_processor_stays_as_it_is(film: str) -> None:
    stock = tiny.qwen2_5_vl()
    SelectingCollator(stock, NamedFrames())
    assert not hasattr(stock, "_refocus")
    assert type(stock) is type(tiny.qwen2_5_vl())


def test_bad_examples_are_named(film: str) -> None:
    good = example(film)
    for bad, message in (
        ({"messages": chat_about(film)}, "example 2: its last message is not an answer"),
        ({"text": "x"}, "example 2 has neither messages nor prompt and completion, but text"),
    ):
        with pytest.raises(InputError, match=message):
            collator()([good, bad])
    with pytest.raises(InputError, match=r"example 1 has .* tokens, more than max_length=50"):
        collator(max_length=50)([good])
    with pytest.raises(InputError, match=r"conversation 2.* no question"):
        collator()([good, example(film, " ")])
    with pytest.raises(VideoOpenError, match=r"conversation 2, video 1 .*gone"):
        collator()([good, example("gone.mp4")])


def arguments(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 1e-2,
        "report_to": [], "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "disable_tqdm": True,
        "remove_unused_columns": False, **more,
    }  # fmt: skip


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_the_trainer_of_transformers_learns(film: str, tmp_path: Path) -> None:
    collate = collator()
    model = build("qwen2_5_vl", collate.processor)
    rows = [example(film), example(film, "What is in 1, 2, 3, 4, 5 and 6?")]
    trainer = Trainer(model, TrainingArguments(**arguments(tmp_path)), collate, rows)
    trainer.train()
    assert len(losses(trainer)) == 4
    assert all(math.isfinite(loss) for loss in losses(trainer))
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_the_trainer_of_trl_learns(film: str, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is installed by `make test-engines` only")
    datasets = pytest.importorskip("datasets")
    processor = tiny.qwen2_5_vl()
    rows = datasets.Dataset.from_list([example(film), example(film, "What is in 1, 2, 3, 4, 5 and 6?")])
    trainer = trl.SFTTrainer(
        build("qwen2_5_vl", processor),
        trl.SFTConfig(
            **arguments(tmp_path, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, bf16=False)
        ),
        SelectingCollator(processor, NamedFrames(), num_frames=6),
        rows,
        processing_class=processor,
    )
    trainer.train()
    assert all(math.isfinite(loss) for loss in losses(trainer))
    assert losses(trainer)[-1] < losses(trainer)[0]
