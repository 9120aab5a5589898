"""`RefocusConfig`: one description for the authors' 1.3B network and for small ones.

The field names are those of the authors' `config.json`; the last group of fields is ours. A setting that this
implementation does not compute is refused by name, never computed differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import SelectorLoadError
from ..plain_text import shown

MODEL_TYPE = "refocus-select-policy"
AUTHOR_MODEL_TYPES = ("refocus", "mamba2", "llava_mamba")
FORMAT_VERSION = 1

_RETIRED: Mapping[str, Any] = {
    "backbone": "mamba2", "feature_encoder": "", "question_mentions": 0, "frame_cues": False,
    "question_fusion": "after", "bidirectional": False, "spread_below": 0.0, "cover_after": 0,
}  # fmt: skip
"""Fields that earlier releases wrote, and the values that mean what this one computes."""

_SSM_INIT_ONLY = frozenset(
    {"A_init_range", "dt_min", "dt_max", "dt_init_floor", "conv_init", "use_mem_eff_path", "sequence_parallel"}
)


@dataclass(frozen=True)
class VisionConfig:
    """Geometry of the SigLIP tower; the defaults are so400m/14 at 384 pixels without its last block.

    Attributes:
        num_hidden_layers: blocks that are computed (one fewer than the SigLIP model they come from).
        image_mean, image_std: pixel statistics for values in 0..1.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 26
    num_attention_heads: int = 16
    image_size: int = 384
    patch_size: int = 14
    layer_norm_eps: float = 1e-6
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def grid(self) -> int:
        """Patches per side; pixels that do not fill a patch are dropped."""
        return self.image_size // self.patch_size

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> VisionConfig:
        """Read the keys of a transformers `SiglipVisionConfig` (its `num_hidden_layers` taken as the number computed).

        Raises:
            SelectorLoadError: for an activation, channel count or value that is not SigLIP's.
        """
        if raw.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
            raise SelectorLoadError(f"vision hidden_act {raw['hidden_act']!r} is not SigLIP's 'gelu_pytorch_tanh'")
        if raw.get("num_channels", 3) != 3:
            raise SelectorLoadError(f"vision num_channels {raw['num_channels']!r}: only RGB (3) is supported")
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k in known}
        config = cls(**values)
        check_types(config, "vision ")
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
                     "patch_size"):  # fmt: skip
            check_positive(f"vision {name}", getattr(config, name))
        if config.hidden_size % config.num_attention_heads:
            raise SelectorLoadError(
                f"vision hidden_size {config.hidden_size} is not a multiple of "
                f"num_attention_heads {config.num_attention_heads}"
            )
        return config


@dataclass(frozen=True)
class SSMConfig:
    """The Mamba-2 mixer (`ssm_cfg` in the authors' file).

    Attributes:
        d_state: state size N per channel.
        headdim: channels P per head.
        ngroups: groups G of heads that share B and C.
        chunk_size: a speed setting of the authors' kernels; no effect on results, and not used here.
        rmsnorm: gated RMSNorm before the output projection; without it the gate alone.
    """

    d_state: int = 128
    d_conv: int = 4
    expand: int = 2
    headdim: int = 64
    ngroups: int = 1
    chunk_size: int = 256
    rmsnorm: bool = True
    norm_before_gate: bool = False
    bias: bool = False
    conv_bias: bool = True

    @classmethod
    def from_dict(cls, raw: Any, d_model: int) -> SSMConfig:
        """Read `ssm_cfg`.

        Raises:
            SelectorLoadError: naming the setting that is not supported.
        """
        if not isinstance(raw, Mapping):
            raise SelectorLoadError('config.json has no \'ssm_cfg\' object; it must hold at least "layer": "Mamba2"')
        raw = dict(raw)
        layer = raw.pop("layer", "Mamba1")
        if layer != "Mamba2":
            raise SelectorLoadError(f"ssm_cfg.layer is {layer!r}: only 'Mamba2' is supported")
        expand = raw.get("expand", 2)
        check_positive("ssm_cfg.expand", expand)
        if raw.pop("d_ssm", None) not in (None, expand * d_model):
            raise SelectorLoadError("ssm_cfg.d_ssm smaller than expand * d_model is not supported")
        if raw.pop("D_has_hdim", False):
            raise SelectorLoadError("ssm_cfg.D_has_hdim=true is not supported (the authors' decoding fails on it too)")
        limit = raw.pop("dt_limit", None)
        if limit is not None and not _is_no_limit(limit):
            # The authors' single-step path ignores the limit and their parallel path applies it: no one meaning.
            raise SelectorLoadError(f"ssm_cfg.dt_limit={shown(limit)} is not supported; only (0, inf) is")
        known = {f.name for f in fields(cls)}
        unknown = sorted(raw.keys() - known - _SSM_INIT_ONLY)
        if unknown:
            raise SelectorLoadError(f"ssm_cfg has unknown settings: {', '.join(unknown)}")
        config = cls(**{k: v for k, v in raw.items() if k in known})
        check_types(config, "ssm_cfg.")
        for name in ("d_state", "d_conv", "expand", "headdim", "ngroups", "chunk_size"):
            check_positive(f"ssm_cfg.{name}", getattr(config, name))
        if config.d_conv < 2:
            raise SelectorLoadError(f"ssm_cfg.d_conv must be at least 2, not {config.d_conv}")
        inner = config.expand * d_model
        if inner % config.headdim:
            raise SelectorLoadError(f"expand * d_model = {inner} is not a multiple of ssm_cfg.headdim {config.headdim}")
        if (inner // config.headdim) % config.ngroups:
            raise SelectorLoadError(
                f"{inner // config.headdim} heads cannot be split into ssm_cfg.ngroups={config.ngroups} groups"
            )
        return config


@dataclass(frozen=True)
class RefocusConfig:
    """Everything that shapes the network; `from_dict` reads either format, `to_dict` writes ours.

    Attributes:
        d_model: width d of the backbone.
        n_layer: blocks of the backbone.
        vocab_size: entries of the tokenizer; the embedding has `embedding_rows` rows.
        ssm: the Mamba-2 layers.
        rms_norm: RMSNorm blocks; false means LayerNorm.
        query_frames: picks Q of one run by default.
        score_head_norm, value_head_norm: the authors' values: false or "False" plain, true, "True" or "norm" L2,
            "rmsnorm" RMS. Any truthy `value_head_norm`, the string "False" included, brings a `value_head_scale`.
        logit_scale_type: "vector" for one scale per channel, anything else for a scalar.
        attention_scaling: divide the scale by sqrt(d).
        frame_replacement: the authors' default for drawing a frame twice; kept for training, a selector never does.
        mm_hidden_size: width of the frame features that enter the projector.
        mm_spatial_pool_mode: "bilinear", "average" or "max" (the authors'), "mean" (one token per frame) or
            "none" (ours).
        frame_encoder: "siglip" for the tower described by `vision`; "none" when features [F, T, mm_hidden_size] are
            computed elsewhere and given to the network.
        question_hidden_size: above 0, the question enters as one vector of this size through a linear layer
            instead of as text tokens.
        similarity_residual: logits get a learned multiple of a frame-question similarity that the caller provides.
        answer_options: whether the policy was trained to see the answer options.
        max_fps, max_num_frames, candidate_method: the candidate rule of this policy.
    """

    d_model: int
    n_layer: int
    vocab_size: int
    ssm: SSMConfig = field(default_factory=SSMConfig)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    pad_vocab_size_multiple: int = 1
    query_frames: int = 32
    start_of_frame_token_id: int = 0
    score_head_norm: bool | str = False
    value_head_norm: bool | str = False
    logit_scale_fn: str = "softplus"
    logit_scale_type: str = "scalar"
    attention_scaling: bool = False
    frame_replacement: bool = True
    use_rank_head: bool = False
    mm_hidden_size: int = 1152
    mm_projector_type: str = "linear"
    mm_spatial_pool_mode: str = "bilinear"
    vision_encode_chunk_size: int = 8
    # ours
    frame_encoder: str = "siglip"
    vision: VisionConfig = field(default_factory=VisionConfig)
    question_hidden_size: int = 0
    similarity_residual: bool = False
    answer_options: bool = True
    max_fps: float = 4.0
    max_num_frames: int = 512
    candidate_method: str = "paper"

    def __post_init__(self) -> None:
        check_types(self, "")
        for name in ("d_model", "n_layer", "vocab_size", "pad_vocab_size_multiple", "query_frames", "mm_hidden_size",
                     "vision_encode_chunk_size", "max_num_frames"):  # fmt: skip
            check_positive(name, getattr(self, name))
        _one_of("logit_scale_fn", self.logit_scale_fn, ("softplus", "exp"))
        _one_of("mm_spatial_pool_mode", self.mm_spatial_pool_mode, ("bilinear", "average", "max", "mean", "none"))
        _one_of("frame_encoder", self.frame_encoder, ("siglip", "none"))
        if self.question_hidden_size < 0:
            raise SelectorLoadError(f"question_hidden_size must not be negative: {self.question_hidden_size}")
        if self.max_fps <= 0:
            raise SelectorLoadError(f"max_fps must be above 0, not {self.max_fps}")
        _one_of("candidate_method", self.candidate_method, ("time", "paper"))
        head_norm("score_head_norm", self.score_head_norm)
        head_norm("value_head_norm", self.value_head_norm)
        projector_depth(self.mm_projector_type)
        if self.mm_projector_type == "identity" and self.mm_hidden_size != self.d_model:
            raise SelectorLoadError("mm_projector_type 'identity' needs mm_hidden_size equal to d_model")
        if self.frame_encoder == "siglip" and self.vision.hidden_size != self.mm_hidden_size:
            raise SelectorLoadError(
                f"mm_hidden_size {self.mm_hidden_size} differs from the vision tower's width {self.vision.hidden_size}"
            )
        if not 0 <= self.start_of_frame_token_id < self.embedding_rows:
            raise SelectorLoadError(
                f"start_of_frame_token_id {self.start_of_frame_token_id} lies outside the {self.embedding_rows} "
                "embedding rows"
            )

    @property
    def embedding_rows(self) -> int:
        """`vocab_size` rounded up to `pad_vocab_size_multiple`."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple

    @property
    def tokens_per_frame(self) -> int:
        """T, the visual tokens of a frame behind the pooling of a SigLIP tower."""
        grid = self.vision.grid
        sides = {"bilinear": -(-grid // 2), "average": grid // 2, "max": grid // 2, "mean": 1, "none": grid}
        return sides[self.mm_spatial_pool_mode] ** 2

    @property
    def has_value_scale(self) -> bool:
        """Whether the checkpoint holds `value_head_scale` (Python truth of the raw field, so "False" counts)."""
        return bool(self.value_head_norm)

    def to_dict(self) -> dict[str, Any]:
        """The content of our `config.json`, flat except for `ssm_cfg` and `vision_config`."""
        raw = asdict(self)
        ssm, vision = raw.pop("ssm"), raw.pop("vision")
        return {
            "model_type": MODEL_TYPE,
            "format_version": FORMAT_VERSION,
            **raw,
            "ssm_cfg": {"layer": "Mamba2", **ssm},
            "vision_config": vision if self.frame_encoder == "siglip" else None,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, vision: VisionConfig | None = None) -> RefocusConfig:
        """Read a `config.json` of the authors' format or of ours.

        Args:
            raw: the parsed file.
            vision: geometry of the tower, which the authors' file does not hold.

        Raises:
            SelectorLoadError: naming the field that is missing, wrong or not supported.
        """
        kind = raw.get("model_type")
        if kind == MODEL_TYPE:
            return cls._from_own(raw)
        if kind not in AUTHOR_MODEL_TYPES:
            raise SelectorLoadError(
                f"config.json has model_type {shown(kind)}; a selector has one of "
                f"{', '.join((*AUTHOR_MODEL_TYPES, MODEL_TYPE))}"
            )
        _refuse_unsupported(raw)
        return cls._build(raw, vision or VisionConfig())

    @classmethod
    def _from_own(cls, raw: Mapping[str, Any]) -> RefocusConfig:
        if raw.get("format_version") != FORMAT_VERSION:
            raise SelectorLoadError(
                f"config.json has format_version {raw.get('format_version')!r}; this release reads {FORMAT_VERSION}: "
                "update refocus-select"
            )
        known = {f.name for f in fields(cls)} | {"model_type", "format_version", "ssm_cfg", "vision_config", *_RETIRED}
        used = [name for name, default in _RETIRED.items() if raw.get(name, default) != default]
        if used:
            raise SelectorLoadError(
                f"this policy was trained by an earlier release, for the vectors of one encoder ({', '.join(used)} of "
                "config.json); use 'mini-policy', which reads those of any, or train it again"
            )
        unknown = sorted(raw.keys() - known)
        if unknown:
            raise SelectorLoadError(f"config.json has unknown fields: {', '.join(unknown)}")
        vision = raw.get("vision_config")
        if vision is not None and not isinstance(vision, Mapping):
            raise SelectorLoadError(f"vision_config must be an object, not {shown(vision)}")
        return cls._build(raw, VisionConfig.from_dict(vision) if vision else VisionConfig())

    @classmethod
    def _build(cls, raw: Mapping[str, Any], vision: VisionConfig) -> RefocusConfig:
        for name in ("d_model", "n_layer", "vocab_size"):
            if name not in raw:
                raise SelectorLoadError(f"config.json has no {name!r}")
            check_positive(name, raw[name])
        known = {f.name for f in fields(cls)} - {"ssm", "vision"}
        values = {k: v for k, v in raw.items() if k in known}
        if values.get("start_of_frame_token_id", 0) is None:
            raise SelectorLoadError("start_of_frame_token_id is missing; autoregressive selection needs it")
        return cls(**values, ssm=SSMConfig.from_dict(raw.get("ssm_cfg"), raw["d_model"]), vision=vision)


def head_norm(name: str, value: bool | str | None) -> str:
    """What a head's normalisation field means: "none", "l2" or "rms", as the authors' release reads it."""
    meanings: dict[Any, str] = {"False": "none", "True": "l2", "norm": "l2", "rmsnorm": "rms"}
    if value is None or value is False:
        return "none"
    if value is True:
        return "l2"
    if not isinstance(value, str) or value not in meanings:
        raise SelectorLoadError(f"{name} {shown(value)} is unknown; known are false, true, 'norm' and 'rmsnorm'")
    return meanings[value]


def projector_depth(kind: str) -> int:
    """Number of linear layers of `mm_projector_type`; 0 for "identity".

    Raises:
        SelectorLoadError: for the authors' residual and pooling projectors, which are not implemented.
    """
    if kind == "identity":
        return 0
    if kind == "linear":
        return 1
    match = re.fullmatch(r"mlp([1-9]\d{0,3})x_gelu", str(kind))
    if match is None:
        raise SelectorLoadError(
            f"mm_projector_type {kind!r} is not supported; supported are 'linear', 'mlpNx_gelu' and 'identity'"
        )
    return int(match[1])


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    """Fields of the authors' file whose other values would change the result."""
    for name in ("d_model", "n_layer", "vocab_size", "ssm_cfg", "rms_norm", "mm_hidden_size", "mm_spatial_pool_mode",
                 "mm_vision_tower"):  # fmt: skip
        if raw.get(name) is None:
            raise SelectorLoadError(f"config.json has no {name!r}; a ReFoCUS selector needs it")
    method = raw.get("frame_generation_method", "block")
    if method != "autoregressive":
        raise SelectorLoadError(
            f"frame_generation_method is {method!r} (the default is 'block'): only 'autoregressive' is supported"
        )
    if raw.get("start_of_frame_token_id") is None:
        raise SelectorLoadError("start_of_frame_token_id is missing; autoregressive selection needs it")
    if raw.get("d_intermediate", 0):
        raise SelectorLoadError(f"d_intermediate={raw['d_intermediate']}: blocks with an MLP are not supported")
    if raw.get("attn_layer_idx"):
        raise SelectorLoadError(f"attn_layer_idx={raw['attn_layer_idx']}: attention layers are not supported")
    if raw.get("mm_patch_merge_type", "flat") != "flat":
        raise SelectorLoadError(f"mm_patch_merge_type {raw['mm_patch_merge_type']!r} is not supported; only 'flat' is")
    if "siglip" not in str(raw["mm_vision_tower"]):
        raise SelectorLoadError(f"mm_vision_tower {raw['mm_vision_tower']!r} is not a SigLIP tower")
    _one_of("mm_spatial_pool_mode", raw["mm_spatial_pool_mode"], ("bilinear", "average", "max"))


def check_types(config: Any, prefix: str) -> None:
    """Refuse values of other types than the fields have.

    Raises:
        SelectorLoadError: naming the field.
    """
    for item in fields(config):
        value, kind = getattr(config, item.name), str(item.type)
        if kind in _TYPES and not _TYPES[kind](value):
            raise SelectorLoadError(f"{prefix}{item.name} must be {_NAMES[kind]}, not {shown(value)}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_MOST = 2**31  # what no size or number of this network reaches
_TYPES: dict[str, Callable[[Any], bool]] = {
    "int": _is_whole,
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "bool": lambda value: isinstance(value, bool),
    "bool | str": lambda value: value is None or isinstance(value, bool | str),
    "str": lambda value: isinstance(value, str),
    "tuple[float, float, float]": lambda v: isinstance(v, tuple) and len(v) == 3 and all(map(_is_number, v)),
}
_NAMES = {
    "int": "a whole number",
    "float": "a finite number",
    "float | None": "a finite number or null",
    "bool": "true or false",
    "bool | str": "true, false or a text",
    "str": "a text",
    "tuple[float, float, float]": "three finite numbers",
}


def _is_no_limit(limit: Any) -> bool:
    try:
        low, high = (float(edge) for edge in limit)
    except (TypeError, ValueError, OverflowError):
        return False
    return low <= 0.0 and high == math.inf


def check_positive(name: str, value: Any) -> None:
    if not _is_whole(value) or value < 1:
        raise SelectorLoadError(f"{name} must be a positive whole number below 2^31, not {shown(value)}")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        known = ", ".join(map(repr, allowed))
        raise SelectorLoadError(f"{name} {shown(value)} is not supported; supported are {known}")
