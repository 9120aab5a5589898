"""Reading video: one interface over files, URLs, bytes, pictures and arrays, and over the decoders.

inputs       what people hand over as a video, with the keys beside it
sources      open_video: what kind of thing is it, and who reads it
base         Video, VideoMetadata, Frames: what every opened video offers
engine       runs spans of a plan on threads, into an array or a bounded stream
plan         which packets to decode for which frames, and how threads share them (pure)
container    opens a file with PyAV so that nothing else can be reached
index        presentation times, decoding order and keyframes of a file
_pyav        the default backend; _decoder (packets in, pictures out), _damage (what to trust, what to show instead)
_decord, _torchcodec   other decoders on request, on PyAV's index
images       folders, lists, animated WebP, arrays; arrays (frames in memory, in every form)
candidates   which frames are considered at all
"""

from refocus_select.video.base import Frames, Video, VideoMetadata
from refocus_select.video.candidates import CandidatePlan, CandidateRule, sample_candidates
from refocus_select.video.inputs import read_input
from refocus_select.video.sources import open_video, opened

__all__ = [
    "CandidatePlan",
    "CandidateRule",
    "Frames",
    "Video",
    "VideoMetadata",
    "open_video",
    "opened",
    "read_input",
    "sample_candidates",
]
