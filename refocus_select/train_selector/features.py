"""The cache of frame features: how large they are, and of which part of the videos keeping them is of use."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..cache import parse_size
from ..models.config import RefocusConfig
from ..reference.clips import VideoFiles
from .config import TrainConfig
from .data import QuestionSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureBudget:
    """What the features of a run take.

    Attributes:
        each: bytes of a video with the most candidates.
        videos: distinct videos that are learned from.
        held_out: distinct videos of the validation.
        visits: how often a run asks for each of the former, on average.
        limit: bytes of the cache.
    """

    each: int
    videos: int
    held_out: int
    visits: float
    limit: int

    @property
    def share(self) -> float:
        """Of the videos to learn from, those whose features are kept; held-out ones are asked for again and again."""
        if self.visits <= 1:
            return 0.0
        return min(1.0, max(0.0, self.limit - self.held_out * self.each) / max(1, self.videos * self.each))

    def told(self) -> str:
        """For people."""
        total = f"{self.each / 1e6:.0f} MB a video at most, {self.videos + self.held_out} videos"
        if self.visits <= 1:
            return f"{total}; only held-out ones are kept, since a run asks for each other one {self.visits:.2f} times"
        if self.share < 1:
            return (
                f"{total}; {self.share:.0%} of those learned from are kept within data.cache_size: more would be "
                "thrown out before they are asked for again"
            )
        return f"{total}; all are kept, {(self.videos + self.held_out) * self.each / 1e9:.1f} GB at most"


def feature_bytes(network: RefocusConfig, config: TrainConfig) -> int:
    """Bytes of the features (or pictures, if the tower is trained) of a video with the most candidates."""
    if config.policy.train_vision:
        return config.data.max_frames * 3 * network.vision.image_size**2
    size = 2 if config.policy.feature_dtype == "bfloat16" else 4
    return config.data.max_frames * network.tokens_per_frame * network.mm_hidden_size * size


def feature_budget(
    network: RefocusConfig, config: TrainConfig, train: QuestionSet, held_out: QuestionSet
) -> FeatureBudget:
    """What the features of a run of the network of the paper take."""
    videos = len({question.video for question in train.questions})
    asked = config.total_steps * config.optimiser.batch
    return FeatureBudget(
        each=feature_bytes(network, config),
        videos=videos,
        held_out=len({question.video for question in held_out.questions}),
        visits=asked / max(1, videos),
        limit=parse_size(config.data.cache_size),
    )


def keep_useful(network: RefocusConfig, config: TrainConfig, train: QuestionSet, held_out: QuestionSet) -> None:
    """Let the cache keep what will be found again."""
    if isinstance(train.clips, VideoFiles) and train.listed:
        budget = feature_budget(network, config, train, held_out)
        train.clips.share = budget.share
        if budget.share < 1:
            logger.info("features: %s", budget.told())
