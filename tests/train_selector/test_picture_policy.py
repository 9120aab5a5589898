"""Training a network that reads pictures: from files, through features on disk, to a selector that loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from refocus_select.cache import EncodingCache
from refocus_select.reference.clips import VideoFiles
from refocus_select.selectors import FrameSelector
from refocus_select.selectors.policy import PolicySelector
from refocus_select.train_selector import ReferenceModel, Request, TrainConfig, TrainResult, train_selector
from refocus_select.train_selector.checkpoints import numbered
from refocus_select.train_selector.config import DataConfig, PolicyConfig
from refocus_select.train_selector.initialise import make_policy, parameter_groups, reinitialise
from refocus_select.train_selector.objective import surrogate
from refocus_select.train_selector.picture_policy import PicturePolicy
from refocus_select.video import CandidateRule

from ..models.tiny import selector_folder
from ..video import clips
from .small_run import rows_of

CPU = torch.device("cpu")


class Late(ReferenceModel):
    """Sure of the first option where the frames come late; it looks at no picture."""

    name = fingerprint = "late"

    def option_logits(self, requests: list[Request]) -> list[Tensor]:  # type: ignore[override]
        found = []
        for request in requests:
            worth = request.subsets.float().mean(1)
            found.append(torch.stack([worth, torch.full_like(worth, 3.0)], 1))
        return found


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network in the authors' format, with all the optional heads."""
    return selector_folder(tmp_path_factory.mktemp("start") / "tiny", use_rank_head=True, value_head_norm="norm")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    rows = []
    for i, frames in enumerate((18, 26, 34)):
        clips.encode(folder / f"{i}.mp4", frames, fps=8, width=64, height=48)
        rows.append({"id": f"q{i}", "video": f"{i}.mp4", "question": f"What is number {i}?", "options": ["a", "b"],
                     "answer": 0})  # fmt: skip
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def policy_of(start: Path, *, options: bool = False, **fields: Any) -> PicturePolicy:
    made = make_policy(
        PolicyConfig(init=str(start), **fields), DataConfig(options_to_policy=options), seed=0, device=CPU
    )
    assert isinstance(made, PicturePolicy)
    return made


def batch(policy: PicturePolicy, films: Path, cache: Path) -> list[Any]:
    from refocus_select.questions import read_questions

    questions, problems = read_questions(films / "q.jsonl")
    assert not problems
    source = VideoFiles(CandidateRule(4.0, 512, "paper"), cache=EncodingCache(cache))
    return [policy.inputs(question, source(question.video)) for question in questions]


def gradient(policy: PicturePolicy, inputs: list[Any]) -> dict[str, Tensor]:
    """Of a fixed objective over fixed picks."""
    policy.zero_grad(set_to_none=True)
    for number, one in enumerate(inputs):
        picks = torch.tensor([[[1, 4, 0], [2, 3, 5]]])
        rollouts = policy([one], picks)
        values = torch.tensor([[1.0, -0.7 + number]])
        value = surrogate(rollouts.log_probs, rollouts.log_probs.detach(), values, None).sum()
        (value + 0.1 * rollouts.entropy.sum()).backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def test_segments_and_checkpointing_leave_the_gradient_as_it_is(start: Path, films: Path, tmp_path: Path) -> None:
    found = []
    for checkpointing, tokens in ((False, 8192), (True, 8192), (True, 8), (False, 8)):
        policy = policy_of(start, gradient_checkpointing=checkpointing, segment_tokens=tokens)
        found.append(gradient(policy, batch(policy, films, tmp_path)))
    assert not [name for name in found[0] if "vision" in name]
    assert max(float(g.abs().max()) for g in found[0].values()) > 1e-3
    # The same segments give the same numbers; other segments add them up in another order.
    for one, other, tolerance in ((0, 1, 1e-5), (3, 2, 1e-5), (0, 3, 1e-4)):
        assert found[one].keys() == found[other].keys()
        for name, tensor in found[one].items():
            scale = max(1.0, float(tensor.abs().max()))
            assert float((tensor - found[other][name]).abs().max()) <= tolerance * scale, name


def test_the_tower_learns_only_if_it_shall(start: Path, films: Path, tmp_path: Path) -> None:
    frozen, trained = policy_of(start), policy_of(start, train_vision=True)
    assert {name for name in gradient(trained, batch(trained, films, tmp_path)) if "vision" in name}
    features, pixels = batch(frozen, films, tmp_path)[0].frames, batch(trained, films, tmp_path)[0].frames
    assert features.dtype == torch.bfloat16
    assert pixels.dtype == torch.uint8
    with torch.no_grad():  # either way the network reads the same
        frozen = policy_of(start, feature_dtype="float32")
        one, other = frozen.read(batch(frozen, films, tmp_path)[:1]), trained.read(batch(trained, films, tmp_path)[:1])
    assert torch.allclose(one.keys, other.keys, atol=1e-4)


def test_answer_options_are_read_if_asked_for(start: Path, films: Path, tmp_path: Path) -> None:
    plain, with_options = policy_of(start), policy_of(start, options=True)
    one, other = batch(plain, films, tmp_path)[0].question, batch(with_options, films, tmp_path)[0].question
    assert len(other) > len(one)


# -- a run ------------------------------------------------------------------------------------------


def run(folder: Path, films: Path, start: Path, *words: str) -> TrainResult:
    common = [
        f"output={folder}", f"data.train={films / 'q.jsonl'}", f"data.validation={films / 'q.jsonl'}", "device=cpu",
        f"policy.init={start}", "policy.reinitialise=heads", "objective.advantage=batch", "optimiser.batch=3",
        "optimiser.warmup_steps=0", "optimiser.lr=0.003", "validation.max_drop=null",
        "stages=[{num_frames: [2, 3], steps: 2, rollouts: 4, entropy_bonus: 0.1}]",
    ]  # fmt: skip
    return train_selector(TrainConfig.load(None, [*common, *words]), reference=Late())


@pytest.mark.parametrize("train_vision", [False, True])
def test_two_steps(films: Path, start: Path, tmp_path: Path, train_vision: bool,
                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Every video is decoded once in all; the result loads and picks what the policy in memory picks."""
    from refocus_select.selectors import base

    read: list[str] = []
    original = base.FrameSelector._read

    def counted(self: FrameSelector, source: Any, *arguments: Any, **named: Any) -> Any:
        read.append(f"{type(self).__name__} {Path(source.metadata.source).name}")
        return original(self, source, *arguments, **named)

    monkeypatch.setattr(base.FrameSelector, "_read", counted)
    result = run(tmp_path / "run", films, start, f"policy.train_vision={str(train_vision).lower()}")
    towers = [entry for entry in read if entry.startswith("TowerReader")]
    assert sorted(towers) == [f"TowerReader {i}.mp4" for i in range(3)]  # over two steps and all the looks
    assert len(rows_of(tmp_path / "run", "train")) == 2
    read.clear()

    # The last checkpoint holds what two steps changed.
    from refocus_select.train_selector.checkpoints import load_checkpoint

    policy = policy_of(start, train_vision=train_vision)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    load_checkpoint(numbered(tmp_path / "run" / "checkpoints")[-1], policy, None)
    changed = {name for name, tensor in policy.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("vision" in name for name in changed) == train_vision
    assert any("backbone.layers" in name for name in changed)
    assert any("projector" in name for name in changed)

    # And it is the same selector in memory and on disk.
    policy.selector("mine").save_pretrained(tmp_path / "mine")
    loaded = FrameSelector.from_pretrained(tmp_path / "mine", device="cpu")
    assert isinstance(loaded, PolicySelector)
    policy.eval()
    for number, inputs in enumerate(batch(policy, films, tmp_path / "run" / "features")):
        picks, _, _ = policy.best([inputs], 3)
        chosen = loaded.select(str(films / f"{number}.mp4"), f"What is number {number}?", num_frames=3,
                               fps=4.0, max_frames=512)  # fmt: skip
        position = np.searchsorted(chosen.candidate_indices, chosen.indices)
        assert position.tolist() == sorted(picks[0].tolist())
    assert not [entry for entry in read if entry.startswith("TowerReader")]  # still from the features on disk
    exported = FrameSelector.from_pretrained(result.folder, device="cpu")
    assert len(exported.select(str(films / "0.mp4"), "What?", num_frames=2).indices) == 2


def test_prompts_whose_graph_is_kept_are_read_once(films: Path, start: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Read once or twice, the weights come out alike; and the count of readings is what the setting says."""
    count = [0]
    original = PicturePolicy.read

    def counted(self: PicturePolicy, batch: Any) -> Any:
        count[0] += self.training
        return original(self, batch)

    monkeypatch.setattr(PicturePolicy, "read", counted)
    found = []
    for kept, readings in (("null", 6), ("1", 10), ("0", 12)):  # 2 steps of 3 questions
        count[0] = 0
        run(tmp_path / kept, films, start, f"policy.readings_kept={kept}")
        assert count[0] == readings
        found.append(load_file(numbered(tmp_path / kept / "checkpoints")[-1] / "model.safetensors"))
    for other in found[1:]:
        assert all(torch.allclose(tensor, other[name], atol=1e-6) for name, tensor in found[0].items())


def test_a_layer_keeps_its_input_and_no_more(start: Path, films: Path, tmp_path: Path) -> None:
    """Bytes that wait for the backward pass, counted: checkpointing leaves a small part of them."""
    held = []
    for checkpointing in (False, True):
        policy = policy_of(start, gradient_checkpointing=checkpointing, segment_tokens=16)
        one = batch(policy, films, tmp_path)[2]
        weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        seen: dict[int, tuple[int, Tensor]] = {}

        def pack(tensor: Tensor, weights: set[int] = weights, seen: dict[int, Any] = seen) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            policy([one], torch.tensor([[[1, 4, 0], [2, 3, 5]]]))
        held.append(sum(size for size, _ in seen.values()))
    assert held[1] < 0.4 * held[0]


def test_features_of_another_tower_are_not_taken(start: Path, films: Path, tmp_path: Path) -> None:
    other = selector_folder(tmp_path / "other", seed=5)
    one, two = policy_of(start), policy_of(other)
    assert one.reader.fingerprint != two.reader.fingerprint
    assert policy_of(start, reinitialise="heads").reader.fingerprint == one.reader.fingerprint
    first, second = (batch(p, films, tmp_path / "cache")[0].frames for p in (one, two))
    assert not torch.allclose(first, second)


# -- initialising again -----------------------------------------------------------------------------

HEADS = {
    "pointer.key_head.weight", "pointer.query_head.weight", "pointer.value_head.weight", "pointer.value_head.bias",
    "pointer.value_head_scale", "pointer.logit_scale", "pointer.rank_head.weight", "backbone.embedding.weight",
}  # fmt: skip


@pytest.mark.parametrize(("what", "scale"), [("heads", "softplus"), ("paper", "exp"), ("none", "softplus")])
def test_what_is_initialised_again(tmp_path: Path, what: Any, scale: str) -> None:
    folder = selector_folder(tmp_path / "s", use_rank_head=True, value_head_norm="norm", logit_scale_fn=scale)
    model = policy_of(folder).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    reinitialise(model, what)
    after = model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    if what == "none":
        assert not changed
        return
    last = f"backbone.layers.{model.config.n_layer - 1}."
    block = {name for name in after if name.startswith(last)} | {"backbone.norm_f.weight"}
    assert changed == (HEADS | block if what == "paper" else HEADS)
    head = model.pointer
    for linear in (head.key_head, head.query_head, head.value_head):
        gram = linear.weight.detach() @ linear.weight.detach().T
        assert torch.allclose(gram, 0.01 * torch.eye(len(gram)), atol=1e-5)
    assert not head.value_head.bias.any()
    assert head.value_head_scale is not None
    assert bool((head.value_head_scale == 1).all())
    assert float(head.scale().detach()) == pytest.approx(1.0, abs=1e-6)
    assert head.rank_head is not None
    assert 0.003 < float(head.rank_head.weight.detach().std()) < 0.03
    rows = (after["backbone.embedding.weight"] != before["backbone.embedding.weight"]).any(1).nonzero()[:, 0].tolist()
    assert rows == [model.config.start_of_frame_token_id]
    assert 0.01 < float(model.backbone.embedding.weight[rows[0]].detach().std()) < 0.03
    if what == "paper":
        assert bool((model.backbone.norm_f.weight == 1).all())


def test_decay_is_on_matrices_only(start: Path) -> None:
    policy = policy_of(start)
    decayed, plain = parameter_groups(policy, 0.3)
    names = {id(p): name for name, p in policy.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    spared = {names[id(p)].rsplit(".", 1)[-1] for p in plain["params"]}
    assert {"A_log", "D", "dt_bias", "bias", "logit_scale", "value_head_scale"} <= spared
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    assert not [n for p in (*decayed["params"], *plain["params"]) if "vision" in (n := names[id(p)])]
    total = sum(p.requires_grad for p in policy.parameters())
    assert len(decayed["params"]) + len(plain["params"]) == total
