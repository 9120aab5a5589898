"""Reading video: one interface over files, URLs, bytes, pictures and arrays, and over the decoders."""

from refocus_select.video.base import Frames, Video, VideoMetadata
from refocus_select.video.candidates import CandidatePlan, CandidateRule, sample_candidates
from refocus_select.video.sources import open_video

__all__ = [
    "CandidatePlan",
    "CandidateRule",
    "Frames",
    "Video",
    "VideoMetadata",
    "open_video",
    "sample_candidates",
]
