"""`load_reference`, fingerprints, and the tokens of option letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from refocus_select.errors import InputError, SelectorLoadError
from refocus_select.reference import Request, TransformersReference, load_reference
from refocus_select.reference.prompt import Prompter
from tests.installed import VERSION_5

from . import own_reference
from .chat_models import build
from .scenes import QUESTION, Scene

SUBSETS = torch.tensor([[0, 3, 5], [1, 2, 11]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An InternVL saved as people publish one."""
    path = tmp_path_factory.mktemp("models") / "internvl"
    model, processor = build("internvl")
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def asked(reference: Any) -> torch.Tensor:
    return reference.option_logits([Request(QUESTION, Scene(), SUBSETS)])[0]


# -- models of transformers ---------------------------------------------------------------------------


def test_a_folder_gives_the_model_that_was_saved(folder: Path) -> None:
    loaded = load_reference(str(folder), device="cpu")
    here = TransformersReference(*build("internvl"))
    assert isinstance(loaded, TransformersReference)
    assert loaded.cached == VERSION_5
    assert loaded.model.dtype == torch.float32
    assert torch.equal(asked(loaded), asked(here))
    assert loaded.fingerprint == here.fingerprint == load_reference(str(folder), device="cpu").fingerprint
    assert loaded.name == str(folder)


def test_settings_reach_the_model(folder: Path) -> None:
    loaded = load_reference(str(folder), device="cpu", dtype="bfloat16", cache_bytes=0, max_tokens=100, reuse=False)
    assert loaded.model.dtype == torch.bfloat16
    assert not loaded.cached
    assert (loaded.cache.limit, loaded.max_tokens) == (0, 100)
    assert all(not p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training


def test_fingerprints_tell_what_decides_the_answers(folder: Path) -> None:
    def print_of(change: Any = None, **kwargs: Any) -> str:
        model, processor = build("internvl")
        if change is not None:
            with torch.no_grad():
                change(model, processor)
        return TransformersReference(model, processor, **kwargs).fingerprint

    same = print_of()
    assert print_of(cache_bytes=0, max_tokens=7, name="other") == same
    others = [
        print_of(lambda m, p: m.lm_head.weight.mul_(1.01)),
        print_of(lambda m, p: m.bfloat16()),
        print_of(lambda m, p: setattr(p, "chat_template", p.chat_template + "Answer: ")),
        print_of(lambda m, p: setattr(p.video_processor, "size", {"height": 14, "width": 14})),
        print_of(size=(24, 32)),
        print_of(template_kwargs={"enable_thinking": False}),
    ]
    assert len({same, *others}) == 7


@pytest.mark.parametrize("dtype", ["int8", "half-baked"])
def test_other_dtypes_are_refused(folder: Path, dtype: str) -> None:
    with pytest.raises(InputError, match="dtype must be"):
        load_reference(str(folder), dtype=dtype)


def test_unknown_settings_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no setting batch_size"):
        load_reference(str(folder), batch_size=3)


def test_what_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectorLoadError, match="there is no folder"):
        load_reference(str(tmp_path / "nothing"))
    with pytest.raises(SelectorLoadError, match=r"no config\.json"):
        load_reference(str(tmp_path))
    with pytest.raises(SelectorLoadError, match="not complete in the local cache"):
        load_reference("nobody/no-such-model", local_files_only=True, cache_dir=str(tmp_path))

    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(SelectorLoadError, match=r"neither model\.safetensors"):
        load_reference(str(empty))


def test_a_text_model_in_a_folder_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=300)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not count among its image-text-to-text models"):
        load_reference(str(tmp_path), device="cpu")


def test_missing_weights_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(n for n in weights if "mlp" in n and "language" in n)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SelectorLoadError, match="lack 1 tensors"):
        load_reference(str(tmp_path), device="cpu")


# -- a user's own -------------------------------------------------------------------------------------

HERE = own_reference.__name__


def test_a_users_own_reference_model() -> None:
    assert torch.equal(asked(load_reference(f"{HERE}:Late", scale=3.0))[:, 0], 3 * SUBSETS.float().mean(1))
    assert torch.equal(asked(load_reference(f"{HERE}:make", scale=0.5))[:, 0], SUBSETS.float().mean(1) / 2)
    assert load_reference(f"{HERE}:made") is own_reference.made


@pytest.mark.parametrize(
    ("spec", "kwargs", "message"),
    [
        ("no_such_module_here:Late", {}, "no module 'no_such_module_here'"),
        (f"{HERE}:Early", {}, "has no attribute 'Early'"),
        (f"{HERE}:made", {"scale": 1.0}, "made already; it takes no scale"),
        (f"{HERE}:HERE_IS_NOTHING", {}, "has no attribute"),
        (f"{HERE}:broken", {}, "gives an object of type int, which is not a ReferenceModel"),
        (f"{HERE}:broken.__name__", {}, "is a str, neither"),
    ],
)
def test_what_is_no_reference_model(spec: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_reference(spec, **kwargs)


def test_readers_are_known_by_their_configuration(tmp_path: Path) -> None:
    from refocus_select.reference import loading

    (tmp_path / "config.json").write_text(json.dumps({"model_type": loading.READER_TYPE}))
    assert loading._model_type(str(tmp_path), {}) == loading.READER_TYPE


# -- option letters -----------------------------------------------------------------------------------


def merging(*words: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that has some two-letter words, written with "Ġ" for a space, as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, *words])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[(w[0], w[1]) for w in words]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")


def prompter(tokenizer: Any) -> Prompter:
    _, processor = build("llava_onevision")
    processor.tokenizer = tokenizer
    return Prompter(processor, name="test")


def words(tokenizer: Any, ids: list[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids)


def test_letters_follow_a_line_break_or_a_special_token_directly() -> None:
    tokenizer = merging("ĠA", "ĠB", "ĠC", ".A")
    for end in ("assistant\n", "assistant ", "<|im_start|>"):
        assert words(tokenizer, prompter(tokenizer).letters(f"Which?{end}", 3)) == ["A", "B", "C"]


def test_letters_follow_words_behind_a_space() -> None:
    tokenizer = merging("ĠA", "ĠB", "ĠC")
    assert words(tokenizer, prompter(tokenizer).letters("Which? ASSISTANT:", 3)) == ["ĠA", "ĠB", "ĠC"]


def test_without_tokens_of_space_and_letter_the_letter_alone_counts() -> None:
    tokenizer = merging("ĠA", "ĠB")
    assert words(tokenizer, prompter(tokenizer).letters("Which? ASSISTANT:", 3)) == ["A", "B", "C"]


def test_letters_that_would_change_the_prompt_are_not_taken() -> None:
    tokenizer = merging(":A", "ĠA", "ĠB")
    assert words(tokenizer, prompter(tokenizer).letters("Which? ASSISTANT:", 2)) == ["ĠA", "ĠB"]


def test_letters_that_are_not_tokens_of_their_own_are_an_error() -> None:
    core = Tokenizer(models.WordLevel({"A": 0, "<unk>": 1, "B": 2, "Which": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert words(tokenizer, prompter(tokenizer).letters("Which\n", 2)) == ["A", "B"]
    with pytest.raises(InputError, match="letters A, B, C, D behind its prompt as one token"):
        prompter(tokenizer).letters("Which\n", 4)  # C and D are both unknown


def test_twenty_six_options() -> None:
    _, processor = build("llava_onevision")
    ids = Prompter(processor, name="test").letters("assistant\n", 26)
    assert "".join(words(processor.tokenizer, ids)) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_a_model_that_thinks_first_is_refused_until_it_is_told_not_to() -> None:
    model, processor = build("llava_onevision")
    processor.chat_template += "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    with pytest.raises(InputError, match="enable_thinking"):
        asked(TransformersReference(model, processor))
    quiet = TransformersReference(model, processor, template_kwargs={"enable_thinking": False})
    assert torch.equal(asked(quiet), asked(TransformersReference(*build("llava_onevision"))))


HUB = """
import json, sys
import torch
from refocus_select.errors import SelectorLoadError
from refocus_select.reference import Request, load_reference
from tests.reference.scenes import QUESTION, Scene
reference = load_reference("owner/internvl", device="cpu", revision="main")
again = load_reference("owner/internvl", device="cpu", local_files_only=True)
(logits,) = reference.option_logits([Request(QUESTION, Scene(), torch.tensor([[0, 3, 5], [1, 2, 11]]))])
found = {"logits": logits.tolist(), "same": again.fingerprint == reference.fingerprint, "name": reference.name}
try:
    load_reference("owner/closed")
except SelectorLoadError as error:
    found["closed"] = str(error)
print(json.dumps(found))
"""


def test_a_model_of_the_hub(folder: Path, tmp_path: Path) -> None:
    """In a fresh process, since the Hub's client reads its address when it is imported."""
    from tests.hub.server import FakeHub, Repo
    from tests.hub.test_hub import run

    with FakeHub().running() as hub:
        hub.repos["owner/internvl"] = Repo({file.name: file.read_bytes() for file in folder.iterdir()})
        hub.repos["owner/closed"] = Repo(gate=403)
        found = run(hub, tmp_path, HUB, None, HF_TOKEN="dummy")
    assert found["same"]
    assert found["name"] == "owner/internvl"
    assert "owner/closed is gated" in found["closed"] or "HTTP 403" in found["closed"]
    expected = asked(TransformersReference(*build("internvl")))
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, atol=1e-5, rtol=0)
