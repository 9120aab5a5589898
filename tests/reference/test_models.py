"""Reference models of transformers give the logits of plain passes: the processor's inputs, then `model.forward`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from refocus_select.adapters import with_frame_selection
from refocus_select.errors import InputError, VideoDecodeError
from refocus_select.questions import Question
from refocus_select.reference import Request, TransformersReference
from refocus_select.reference.clips import Clip, VideoClip
from refocus_select.reference.layouts import LAYOUTS
from refocus_select.reference.visual_cache import VisualCache
from tests.adapters import tiny
from tests.adapters.film import NamedFrames, write_film
from tests.installed import VERSION_5, needs, nested

from .chat_models import MODELS, build
from .scenes import OTHER, QUESTION, Scene

SUBSETS = torch.tensor([[0, 3, 5, 7], [1, 2, 3, 11], [4, 5, 6, 7], [0, 1, 2, 3], [8, 9, 10, 11]])
CACHED = sorted(LAYOUTS)
FULL = sorted(set(MODELS) - set(LAYOUTS))

# Families whose own prompts hold no times, or only their mean spacing: the adapters add a sentence.
WORDS = {"qwen2_vl", "qwen2_5_vl", "llava_onevision", "llava_next_video", "internvl", "llava"}
ASKED = (
    "Which colour is the ball?\nA. red\nB. green\nC. blue\nD. white\n"
    "Answer with the option's letter from the given choices directly."
)


def build_cached(model_type: str) -> tuple[Any, Any]:
    """As `build`, for tests of what is computed once per candidate."""
    needs(VERSION_5, "takes no visual tokens, so that none are kept")
    return build(model_type)


def plain_pass(model_type: str, model: Any, processor: Any, clip: Clip, row: list[int]) -> Tensor:
    """The logits of A to D for one subset, written out by hand."""
    times = clip.timestamps[row]
    merge = 2 if model_type.startswith(("qwen", "glm")) else 1
    frames = clip.pictures(np.repeat(row, merge))
    milliseconds = [round(1000 * t) for t in np.repeat(times, merge)]
    words = ""
    if model_type == "internvl":
        named = ", ".join(f"Frame{k} is at {t:.2f}s" for k, t in enumerate(times, start=1))
        words = f"The video lasts for {clip.duration:.2f} seconds. {named}.\n"
    elif model_type in WORDS:
        located = ",".join(f"{t:.2f}s" for t in times)
        words = (
            f"The video lasts for {clip.duration:.2f} seconds, and {len(row)} frames are selected from it. "
            f"These frames are located at {located}.\n"
        )
    if model_type == "llava":
        pictures, kwargs = [{"type": "image", "image": frame} for frame in frames], {}
    else:
        metadata = {
            "total_num_frames": round(1000 * clip.duration),
            "fps": 1000.0,
            "duration": clip.duration,
            "frames_indices": milliseconds,
        }
        pictures, kwargs = (
            [{"type": "video", "video": frames}],
            {"do_sample_frames": False, "video_metadata": [metadata]},
        )
        if model_type == "qwen2_5_vl" and not VERSION_5:  # its spacing is not that of the metadata
            kwargs["fps"] = merge * len(row) / clip.duration
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [*pictures, {"type": "text", "text": words + ASKED}]}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        **nested(**kwargs),
    )
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    return logits[[processor.tokenizer.convert_tokens_to_ids(letter) for letter in "ABCD"]]


def asked(reference: TransformersReference, subsets: Tensor = SUBSETS, **clip: Any) -> Tensor:
    (logits,) = reference.option_logits([Request(QUESTION, Scene(**clip), subsets)])
    return logits


@pytest.mark.parametrize("model_type", [*CACHED, *FULL])
def test_agrees_with_plain_passes(model_type: str) -> None:
    model, processor = build(model_type)
    expected = torch.stack([plain_pass(model_type, model, processor, Scene(), row) for row in SUBSETS.tolist()])
    reference = TransformersReference(model, processor)
    assert reference.cached == (model_type in LAYOUTS and VERSION_5)
    logits = asked(reference)
    assert logits.dtype == torch.float32
    assert logits.device.type == "cpu"
    assert not logits.requires_grad
    assert not logits.is_inference()
    assert expected.std(0).max() > 0.02  # the frames matter far more than the tolerance
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", [*CACHED, *FULL])
def test_batches_numbers_of_frames_and_questions(model_type: str) -> None:
    reference = TransformersReference(*build(model_type))
    clip = Scene()
    requests = [
        Request(QUESTION, clip, SUBSETS),
        Request(OTHER, clip, SUBSETS),
        Request(QUESTION, clip, torch.tensor([[2], [9]])),
        Request(QUESTION, Scene(seed=1), torch.tensor([[0, 1, 2, 4, 6, 8, 10]])),
        Request(QUESTION, clip, torch.zeros(0, 4, dtype=torch.int64)),
    ]
    together = reference.option_logits(requests)
    assert [list(z.shape) for z in together] == [[5, 4], [5, 3], [2, 4], [1, 4], [0, 4]]
    for request, logits in zip(requests, together, strict=True):
        singly = [
            reference.option_logits([Request(request.question, request.clip, s[None])])[0] for s in request.subsets
        ]
        torch.testing.assert_close(logits, torch.cat([logits[:0], *singly]), atol=1e-4, rtol=0)
    small = TransformersReference(*build(model_type), max_tokens=1, reuse=False)
    for logits, anew in zip(together, small.option_logits(requests), strict=True):
        torch.testing.assert_close(logits, anew, atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_order_and_times_matter(model_type: str) -> None:
    reference = TransformersReference(*build(model_type))
    logits = asked(reference, torch.tensor([[0, 3, 5, 7], [7, 5, 3, 0]]))
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    earlier, later = Scene(), Scene()
    later.timestamps = later.timestamps + 40
    later.duration += 40
    later.key += "-later"
    first, second = reference.option_logits([Request(QUESTION, clip, SUBSETS) for clip in (earlier, later)])
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("model_type", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm"])
def test_agrees_with_what_users_of_the_adapters_get(model_type: str, tmp_path: Path) -> None:
    model, processor = build(model_type)
    film = str(write_film(tmp_path / "film.mp4"))
    question = Question("q", film, "What is in 1, 2, 5, 9?", ("day", "night"), 0)
    clip = VideoClip(film, NamedFrames.rule)
    (logits,) = TransformersReference(model, processor).option_logits(
        [Request(question, clip, torch.tensor([[1, 2, 5, 9]]))]
    )
    text = "What is in 1, 2, 5, 9?\nA. day\nB. night\nAnswer with the option's letter from the given choices directly."
    chat = [{"role": "user", "content": [{"type": "video", "video": film}, {"type": "text", "text": text}]}]
    wrapped = with_frame_selection(processor, NamedFrames(), num_frames=4, temporal_merge="duplicate")
    inputs = wrapped.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    with torch.no_grad():
        expected = model(**inputs).logits[0, -1][[processor.tokenizer.convert_tokens_to_ids(x) for x in "AB"]]
    torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)


# -- the visual cache ---------------------------------------------------------------------------------


def count_frames(model: Any) -> list[int]:
    """A list that grows by one with every frame that enters the vision tower, if frames enter one by one."""
    seen: list[int] = []
    tower = getattr(model.model, "vision_tower", None) or model.model.visual
    tower.register_forward_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("model_type", CACHED)
def test_each_candidate_is_seen_once(model_type: str) -> None:
    model, processor = build_cached(model_type)
    reference = TransformersReference(model, processor)
    seen = count_frames(model)
    clip = Scene(16)
    subsets = torch.tensor([[0, 3, 5, 7], [0, 3, 5, 8], [1, 3, 5, 7]])
    reference.option_logits([Request(QUESTION, clip, subsets)])
    assert len(seen) == 6  # 0, 1, 3, 5, 7 and 8
    reference.option_logits([Request(OTHER, clip, subsets), Request(QUESTION, clip, subsets[:1])])
    assert len(seen) == 6
    reference.option_logits([Request(QUESTION, clip, torch.tensor([[0, 2, 5, 7]]))])
    assert len(seen) == 7
    reference.option_logits([Request(QUESTION, Scene(16, seed=3), subsets)])
    assert len(seen) == 13


@pytest.mark.parametrize("model_type", ["llava_onevision", "qwen3_vl"])
def test_full_passes_see_every_frame_of_every_subset(model_type: str) -> None:
    """What the cache saves: the count of `count_frames` does not stay small by itself."""
    model, processor = build(model_type)
    frames = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: frames.append(kwargs["pixel_values_videos"].numel()), with_kwargs=True
    )
    TransformersReference(model, processor, reuse=False, max_tokens=1).option_logits(
        [Request(QUESTION, Scene(), SUBSETS)]
    )
    assert len(frames) == len(SUBSETS)


@pytest.mark.parametrize("model_type", ["internvl", "qwen3_vl"])
def test_the_cache_is_bounded_and_right_after_dropping(model_type: str) -> None:
    expected = asked(TransformersReference(*build_cached(model_type), reuse=False))
    model, processor = build(model_type)
    whole = TransformersReference(model, processor)
    asked(whole)
    per_frame = whole.cache.size // len(whole.cache)
    assert len(whole.cache) == 12

    seen = count_frames(model)
    reference = TransformersReference(model, processor, cache_bytes=3 * per_frame + 1)
    for _ in range(2):
        torch.testing.assert_close(asked(reference), expected, atol=1e-4, rtol=0)
        assert len(reference.cache) == 3
        assert reference.cache.size == 3 * per_frame
    assert len(seen) > 12  # some had to be computed again
    asked(reference, torch.tensor([[8, 9, 10, 11]]))
    assert len(reference.cache) == 3

    nothing = TransformersReference(model, processor, cache_bytes=0)
    torch.testing.assert_close(asked(nothing), expected, atol=1e-4, rtol=0)
    assert nothing.cache.size == len(nothing.cache) == 0


def test_what_was_used_last_is_kept_longest() -> None:
    cache = VisualCache(3 * 4 * 8)
    for key in "abc":
        cache.put(key, (torch.zeros(8),))
    assert cache.get("a") is not None
    cache.put("d", (torch.ones(8),))
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    cache.put("d", (torch.ones(16),))  # larger than before: another one has to go
    assert [cache.get(key) is not None for key in "acd"] == [False, True, True]
    assert cache.size == 3 * 4 * 8


@pytest.mark.parametrize("model_type", ["llava_onevision", "internvl", "qwen2_5_vl"])
def test_logits_do_not_depend_on_what_was_cached(model_type: str) -> None:
    """To the last bit, so that a run that is resumed with an empty cache stays the same run."""
    cold = asked(TransformersReference(*build(model_type)))
    warm = TransformersReference(*build(model_type))
    warm.option_logits([Request(OTHER, Scene(), torch.tensor([[0, 2, 4, 9], [1, 3, 7, 11]]))])
    assert torch.equal(asked(warm), cold)
    assert torch.equal(asked(warm), cold)


@pytest.mark.parametrize("model_type", ["llava_onevision", "glm4v", "qwen3_vl"])
def test_frames_in_batches(model_type: str) -> None:
    model, processor = build_cached(model_type)
    seen = count_frames(model)
    reference = TransformersReference(model, processor, vision_batch=5)
    logits = asked(reference)
    assert len(seen) == 3  # 12 frames by five
    torch.testing.assert_close(logits, asked(TransformersReference(*build(model_type))), atol=1e-4, rtol=0)
    parts = [part for frame in reference.cache._kept.values() for part in frame]
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in parts)


def test_a_budget_of_pixels_for_the_whole_video() -> None:
    """Qwen3-VL shows frames smaller the more there are: tokens are kept for each size."""
    model, processor = build_cached("qwen3_vl")
    processor.video_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96 * 8}
    reference = TransformersReference(model, processor)
    clip = Scene(height=128, width=128)
    few, many = [[0, 5, 7]], [[0, 1, 2, 3, 4, 5, 6, 7, 8]]
    lengths = []
    model.register_forward_pre_hook(lambda m, a, k: lengths.append(k["input_ids"].shape[1]), with_kwargs=True)
    for subset in (few, many, few):
        (logits,) = reference.option_logits([Request(QUESTION, clip, torch.tensor(subset))])
        expected = plain_pass("qwen3_vl", model, processor, clip, subset[0])
        torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)
    sizes = {key[1] for key in reference.cache._kept}
    assert len(sizes) == 2


def test_videos_of_other_sizes() -> None:
    reference = TransformersReference(*build("qwen2_vl"))
    anew = TransformersReference(*build("qwen2_vl"), reuse=False)
    for height, width in ((48, 64), (64, 48), (120, 40)):
        torch.testing.assert_close(
            asked(reference, height=height, width=width), asked(anew, height=height, width=width), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["llava_onevision", "internvl", "qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_half_precision(model_type: str, dtype: torch.dtype) -> None:
    model, processor = build(model_type)
    exact = asked(TransformersReference(model, processor))
    rough = asked(TransformersReference(model.to(dtype), processor))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.3, rtol=0.05)


def test_passes_stay_within_the_token_budget() -> None:
    model, processor = build_cached("llava_onevision")
    sizes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda m, a, k: sizes.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    logits = asked(TransformersReference(model, processor))
    length = sizes[0][1]
    assert sizes == [(5, length)]
    sizes.clear()
    torch.testing.assert_close(
        asked(TransformersReference(model, processor, max_tokens=2 * length + 1)), logits, atol=1e-4, rtol=0
    )
    assert [count for count, _ in sizes] == [2, 2, 1]


@pytest.mark.parametrize("model_type", ["llava_onevision", "smolvlm"])
def test_equal_subsets_are_read_once(model_type: str) -> None:
    model, processor = build(model_type)
    rows: list[int] = []
    model.register_forward_pre_hook(lambda m, a, k: rows.append(len(k["input_ids"])), with_kwargs=True)
    reference = TransformersReference(model, processor)
    repeated = asked(reference, SUBSETS[[4, 0, 0, 4, 1, 0]])
    assert sum(rows) == 3
    torch.testing.assert_close(repeated, asked(reference)[[4, 0, 0, 4, 1, 0]], atol=1e-4, rtol=0)


def test_only_the_last_logits_are_computed() -> None:
    model, processor = build("internvl")
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda m, a, out: rows.append(out.shape[1]))
    asked(TransformersReference(model, processor))
    assert max(rows) <= 4  # one for each length of prompt: the times have one or two digits


# -- what cannot be asked -----------------------------------------------------------------------------


def test_the_reason_for_full_passes_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reference = TransformersReference(*build("smolvlm"))
    asked(reference)
    asked(reference)
    (record,) = [r for r in caplog.records if "from pixels to answer" in r.getMessage()]
    assert "'smolvlm'" in record.getMessage()


def falls_back(reference: TransformersReference, caplog: pytest.LogCaptureFixture) -> None:
    """Whether answers are those of full passes, with one warning."""
    expected = asked(TransformersReference(reference.model, reference.processor, reuse=False))
    assert reference.cached
    assert torch.equal(asked(reference), expected)
    assert not reference.cached
    assert torch.equal(asked(reference), expected)
    (record,) = [r for r in caplog.records if "from pixels to answer" in r.getMessage()]
    assert f"this version of transformers ({transformers.__version__})" in record.getMessage()


@pytest.mark.parametrize("model_type", CACHED)
def test_a_forward_that_wants_visual_tokens_in_another_form(model_type: str, caplog: pytest.LogCaptureFixture) -> None:
    model, processor = build_cached(model_type)

    def rename(module: Any, args: Any, kwargs: Any) -> Any:
        given = kwargs.get("mm_encoder_outputs")
        if given is None:
            return None
        renamed = {key: SimpleNamespace(tokens=value.pooler_output) for key, value in given.items()}
        return args, {**kwargs, "mm_encoder_outputs": renamed}

    model.register_forward_pre_hook(rename, with_kwargs=True)
    falls_back(TransformersReference(model, processor), caplog)


@pytest.mark.parametrize(
    ("model_type", "changed"),
    [
        ("qwen2_5_vl", lambda found: SimpleNamespace(tokens=found.pooler_output)),
        ("qwen3_vl", lambda found: SimpleNamespace(pooler_output=found.pooler_output)),  # DeepStack by another name
        ("glm4v", lambda found: SimpleNamespace(pooler_output=[part[1:] for part in found.pooler_output])),
        ("internvl", lambda found: (found.pooler_output,)),
        ("llava", lambda found: SimpleNamespace(pooler_output=torch.stack(list(found.pooler_output)).mean(1))),
    ],
)
def test_a_vision_tower_that_gives_visual_tokens_in_another_form(
    model_type: str, changed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor = build_cached(model_type)
    method = f"get_{LAYOUTS[model_type].modality}_features"
    stock = getattr(model, method)  # the model's own forward calls that of `model.model`
    monkeypatch.setattr(model, method, lambda *args, **kwargs: changed(stock(*args, **kwargs)))
    falls_back(TransformersReference(model, processor), caplog)


def test_errors_of_the_video_are_not_mistaken_for_an_unknown_form() -> None:
    reference = TransformersReference(*build_cached("internvl"))
    clip = Scene()
    clip.pictures = lambda *args, **kwargs: (_ for _ in ()).throw(VideoDecodeError("frame 7"))  # type: ignore
    with pytest.raises(VideoDecodeError, match="frame 7"):
        reference.option_logits([Request(QUESTION, clip, SUBSETS)])
    assert reference.cached


def test_requests_are_checked() -> None:
    reference = TransformersReference(*build("llava_onevision"))
    clip = Scene()
    with pytest.raises(InputError, match="at least two"):
        reference.option_logits([Request(Question("q", "v", "What?", ("one",)), clip, SUBSETS)])
    with pytest.raises(InputError, match="0 to 12, but the clip has 12"):
        reference.option_logits([Request(QUESTION, clip, torch.tensor([[0, 12]]))])
    with pytest.raises(InputError, match=r"\[N, K\]"):
        reference.option_logits([Request(QUESTION, clip, torch.tensor([0, 1]))])


def test_a_text_model_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=300))
    with pytest.raises(InputError, match="takes no chats with pictures"):
        TransformersReference(model, tiny.tokenizer(), name="gpt2")
    model, processor = build("llava_onevision")
    with pytest.raises(InputError, match="takes no pictures"):
        TransformersReference(GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8)), processor, name="gpt2")
    processor.chat_template = None
    with pytest.raises(InputError, match="has no chat template"):
        TransformersReference(model, processor)


def test_an_encoder_is_refused() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    model = SiglipVisionModel(
        SiglipVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(InputError, match="does not continue a text"):
        TransformersReference(model, build("llava_onevision")[1])
