"""New policies, and the parts of a trained one that are initialised again before reinforcement learning."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ..encoders import DualEncoder, load_encoder
from ..errors import InputError
from ..hub import HubOptions
from ..models.author_format import with_vocabulary
from ..models.backbone import Block
from ..models.checkpoint import read_siglip
from ..models.config import RefocusConfig, SSMConfig, VisionConfig
from ..models.portable import PortableConfig, PortablePolicy
from ..models.prompt import TOKENIZER_FILE, PromptTokenizer
from ..models.refocus import RefocusModel
from ..models.sentences import sentences_beside
from ..selectors.checkpoints import load_policy
from ..selectors.dual_encoder import DualEncoderSelector
from ..selectors.policy import PolicySelector, default_tokenizer
from ..selectors.protocol import PICKS
from ..selectors.vector_policy import VectorPolicySelector
from .config import DataConfig, PolicyConfig
from .data import seeded
from .picture_policy import PicturePolicy
from .policy import Policy
from .vector_policy import VectorPolicy


def make_policy(config: PolicyConfig, data: DataConfig, *, seed: int, device: torch.device) -> Policy:
    """The policy of a run: loaded and partly initialised again, or new.

    Raises:
        SelectorLoadError: if `policy.init` or the encoder cannot be loaded.
        InputError: if the sizes do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(seed, 1))
        policy = _load(config, data, device) if config.init else _new(config, data, device)
    return policy.train()


def _load(config: PolicyConfig, data: DataConfig, device: torch.device) -> Policy:
    selector = load_policy(config.init or "", device=device, dtype="float32", new_heads=True)
    if not isinstance(selector, PolicySelector | VectorPolicySelector):
        raise InputError(f"{config.init} is no policy that can be trained")
    model = selector.model.requires_grad_(True)
    if isinstance(model, RefocusModel) and model.vision is not None:
        model.vision.requires_grad_(config.train_vision)
    reinitialise(model, config.reinitialise)
    # The exported selector draws candidates, and reads options or not, as it was trained to.
    model.config = replace(model.config, max_fps=data.fps, max_num_frames=data.max_frames, candidate_method=data.method)
    if isinstance(model, RefocusModel):
        model.config = replace(model.config, answer_options=data.options_to_policy)
    if isinstance(selector, VectorPolicySelector):
        _refuse_options(data)
        return _vector_policy(selector.model, load_encoder(config.encoder), config)
    return _picture_policy(selector, config)


def _picture_policy(selector: PolicySelector, config: PolicyConfig) -> PicturePolicy:
    return PicturePolicy(
        selector,
        train_vision=config.train_vision,
        gradient_checkpointing=config.gradient_checkpointing,
        segment_tokens=config.segment_tokens,
        readings_kept=config.readings_kept,
        feature_dtype=getattr(torch, config.feature_dtype),
    )


def refocus_config(config: PolicyConfig, data: DataConfig, tokens: int, vision: VisionConfig) -> RefocusConfig:
    """The network of the paper in the sizes of the settings, for a tokenizer of so many entries."""
    plain = RefocusConfig(
        d_model=config.d_model, n_layer=config.n_layer, vocab_size=1,
        ssm=SSMConfig(d_state=config.d_state, headdim=config.headdim),
        query_frames=PICKS, frame_replacement=False, mm_hidden_size=vision.hidden_size, mm_projector_type="mlp2x_gelu",
        vision=vision, answer_options=data.options_to_policy, max_fps=data.fps, max_num_frames=data.max_frames,
        candidate_method=data.method,
    )  # fmt: skip
    return with_vocabulary(plain, tokens)


def _new_refocus(config: PolicyConfig, data: DataConfig, device: torch.device) -> Policy:
    """The network of the paper with random weights behind a pretrained SigLIP tower."""
    vision, tower = read_siglip(config.vision)
    path = Path(config.tokenizer) if config.tokenizer else default_tokenizer("a new policy", HubOptions())
    tokenizer = PromptTokenizer.from_file(path / TOKENIZER_FILE if path.is_dir() else path)
    model = RefocusModel(refocus_config(config, data, tokenizer.tokenizer.get_vocab_size(), vision))
    assert model.vision is not None
    model.vision.load_state_dict(tower)
    model.vision.requires_grad_(config.train_vision)
    reinitialise(model, "heads")
    return _picture_policy(PolicySelector(model.to(device), tokenizer, name="new"), config)


def _new(config: PolicyConfig, data: DataConfig, device: torch.device) -> Policy:
    if config.network == "refocus":
        return _new_refocus(config, data, device)
    _refuse_options(data)
    encoder = load_encoder(config.encoder)
    model = PortablePolicy(
        PortableConfig(
            d_model=config.d_model,
            n_layer=config.n_layer,
            d_state=config.d_state,
            headdim=config.headdim,
            entities=config.entities,
            attention_heads=config.attention_heads,
            max_picks=config.max_picks,
            max_fps=data.fps,
            max_num_frames=data.max_frames,
            candidate_method=data.method,
        )
    )
    reinitialise(model, "heads")
    return _vector_policy(model.to(device), encoder, config)


def _refuse_options(data: DataConfig) -> None:
    if data.options_to_policy:
        raise InputError(
            "data.options_to_policy: a policy over the vectors of an encoder reads no answer options; leave it out, or "
            "train the network of the paper (policy.init)"
        )


def _vector_policy(model: PortablePolicy, encoder: DualEncoder, config: PolicyConfig) -> VectorPolicy:
    return VectorPolicy(
        model,
        DualEncoderSelector(encoder),
        sentences_beside(encoder),
        sentence_noise=config.sentence_noise,
        sentence_dropout=config.sentence_dropout,
        random_eyes=config.random_eyes,
    )


@torch.no_grad()
def reinitialise(model: RefocusModel | PortablePolicy, what: Literal["paper", "heads", "none"]) -> None:
    """Forget what reinforcement learning shall find anew.

    "heads" are the maps to keys, values and queries (orthogonal with gain 0.1), the bias of the values (0), the vector
    that starts the picking (normal, 0.02), the scale of the logits (an effective 1) and the rank head (normal, 0.01).
    "paper" means these, the last block and the final norm, as in the authors' code.
    """
    if what == "none":
        return
    head = model.pointer
    for linear in (head.key_head, head.query_head, head.value_head):
        nn.init.orthogonal_(linear.weight, gain=0.1)
    head.value_head.bias.zero_()
    if head.value_head_scale is not None:
        head.value_head_scale.fill_(1.0)
    head.logit_scale.fill_(0.0 if head.exponential else math.log(math.e - 1))  # exp or softplus gives 1
    if head.rank_head is not None:
        nn.init.normal_(head.rank_head.weight, std=0.01)
    stack = model.config.stack if isinstance(model, PortablePolicy) else model.config
    nn.init.normal_(model.backbone.embedding.weight[stack.start_of_frame_token_id], std=0.02)
    if what == "paper":
        fresh = Block(stack).to(model.backbone.embedding.weight)
        model.backbone.layers[-1].load_state_dict(fresh.state_dict())
        model.backbone.norm_f.weight.fill_(1.0)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters with weight decay on matrices only: not on scales, biases, norms, dt_bias, A_log and D."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
