"""`select_messages`: the portable core."""

from __future__ import annotations

import copy
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refocus_select.adapters import multiple_choice, select_messages
from refocus_select.adapters.input_format import InputFormat, near
from refocus_select.adapters.questions import Question, questions_of, split_multiple_choice
from refocus_select.errors import InputError, VideoOpenError
from refocus_select.video import open_video
from tests.installed import nested

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, CHOSEN_TIMES, QUESTION, TIMES, NamedFrames, greys, picture

MILLISECONDS = [round(1000 * t) for t in CHOSEN_TIMES]


def frames_in(messages: list[dict[str, Any]]) -> list[Any]:
    return [
        b["video"] for m in messages if isinstance(m["content"], list) for b in m["content"] if b["type"] == "video"
    ]


def test_a_path_becomes_frames_with_true_milliseconds(chat: Any, selector: NamedFrames) -> None:
    messages, kwargs = select_messages(chat, selector, num_frames=6)
    (frames,) = frames_in(messages)
    assert frames.dtype == np.uint8
    assert greys(frames) == list(CHOSEN)
    (metadata,) = kwargs["video_metadata"]
    assert kwargs["do_sample_frames"] is False
    assert metadata["fps"] == 1000.0
    assert metadata["frames_indices"] == MILLISECONDS
    assert all(type(i) is int for i in metadata["frames_indices"])
    assert selector.asked == [(QUESTION, None)]


def test_the_callers_chat_is_not_changed(chat: Any, selector: NamedFrames) -> None:
    before = copy.deepcopy(chat)
    messages, _ = select_messages(chat, selector, num_frames=2)
    messages[0]["content"][1]["text"] = "changed"
    assert chat == before


def test_what_was_chosen_can_be_looked_at(chat: Any, selector: NamedFrames) -> None:
    result = select_messages(chat, selector, num_frames=6)
    assert result.selections[0].indices.tolist() == list(CHOSEN)


@pytest.mark.parametrize(
    "kind", ["path", "url_key", "path_key", "file_url", "pathlib", "encoding", "open_video", "video_url"]
)
def test_videos_are_given_in_many_ways(kind: str, film: str, selector: NamedFrames) -> None:
    block: dict[str, Any] = {"type": "video"}
    block.update(
        {
            "path": lambda: {"video": film},
            "url_key": lambda: {"url": film},
            "path_key": lambda: {"path": film},
            "file_url": lambda: {"video": f"file://{film}"},
            "pathlib": lambda: {"video": Path(film)},
            "encoding": lambda: {"video": selector.encode(film)},
            "open_video": lambda: {"video": open_video(film)},
            "video_url": lambda: {"type": "video_url", "video_url": {"url": film}},
        }[kind]()
    )
    messages, kwargs = select_messages(
        [{"role": "user", "content": [block, {"type": "text", "text": QUESTION}]}], selector, num_frames=6
    )
    assert greys(frames_in(messages)[0]) == list(CHOSEN)
    assert set(messages[0]["content"][0]) == {"type", "video"}
    assert kwargs["video_metadata"][0]["frames_indices"] == MILLISECONDS


def test_a_video_at_a_url(film: str, selector: NamedFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(Path(film).parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        chat = chat_about(f"http://127.0.0.1:{server.server_port}/{Path(film).name}")
        messages, kwargs = select_messages(chat, selector, num_frames=6)
        with pytest.raises(VideoOpenError, match=r"video 1 \(http://127\.0\.0\.1"):
            select_messages(chat_about(f"http://127.0.0.1:{server.server_port}/gone.mp4"), selector)
    finally:
        server.shutdown()
        server.server_close()
    assert greys(frames_in(messages)[0]) == list(CHOSEN)
    assert kwargs["video_metadata"][0]["frames_indices"] == MILLISECONDS


@pytest.mark.parametrize("kind", ["numpy", "tensor", "float_tensor", "pil", "arrays", "files"])
def test_frames_stay_of_the_callers_kind(kind: str, selector: NamedFrames, tmp_path: Path) -> None:
    pictures = np.stack([picture(i) for i in range(len(TIMES))])
    if kind == "files":
        for i, p in enumerate(pictures):
            Image.fromarray(p).save(tmp_path / f"{i:02d}.png")
    video = {
        "numpy": lambda: pictures,
        "tensor": lambda: torch.from_numpy(pictures).permute(0, 3, 1, 2),
        "float_tensor": lambda: torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255,
        "pil": lambda: [Image.fromarray(p) for p in pictures],
        "arrays": lambda: list(pictures),
        "files": lambda: [str(p) for p in sorted(tmp_path.glob("*.png"))],
    }[kind]()
    block = {"type": "video", "video": video, "timestamps": list(TIMES)}
    messages, kwargs = select_messages(
        [{"role": "user", "content": [block, {"type": "text", "text": QUESTION}]}], selector, num_frames=6
    )
    (frames,) = frames_in(messages)
    wanted = [video[i] for i in CHOSEN] if kind != "files" else [Image.open(video[i]) for i in CHOSEN]
    assert len(frames) == 6
    for got, expected in zip(frames, wanted, strict=True):
        assert type(got) is type(expected) or kind == "files"
        assert np.array_equal(np.asarray(got), np.asarray(expected))
    if kind.endswith("tensor"):
        assert isinstance(frames, torch.Tensor)
        assert frames.dtype == video.dtype
    assert kwargs["video_metadata"][0]["frames_indices"] == MILLISECONDS


def test_frames_can_be_kept(selector: NamedFrames, film: str) -> None:
    mine = np.stack([picture(i) for i in (3, 4)])
    content = [{"type": "video", "video": mine}, {"type": "video", "video": film}, {"type": "text", "text": QUESTION}]
    result = select_messages([{"role": "user", "content": content}], selector, num_frames=6, frames="keep")
    kept, chosen = frames_in(result[0])
    assert kept is mine
    assert greys(chosen) == list(CHOSEN)
    assert [m["frames_indices"] for m in result[1]["video_metadata"]] == [[0, 1], MILLISECONDS]
    assert result.selections[0] is None


def test_frames_with_their_own_metadata_are_kept(selector: NamedFrames) -> None:
    mine = np.stack([picture(i) for i in (3, 4)])
    metadata = {"total_num_frames": 100, "fps": 25.0, "frames_indices": [3, 50]}
    block = {"type": "video", "video": mine, "video_metadata": metadata}
    messages, kwargs = select_messages([{"role": "user", "content": [block]}], selector)
    assert frames_in(messages)[0] is mine
    assert kwargs == {}
    assert selector.asked == []


def test_a_part_of_the_video(film: str, selector: NamedFrames) -> None:
    block = {"type": "video", "video": film, "video_start": 1.5, "video_end": 5.5}
    chat = [{"role": "user", "content": [block, {"type": "text", "text": "1 5 6 9"}]}]
    result = select_messages(chat, selector, num_frames=2)
    assert result.selections[0].indices.tolist() == [5, 6]


def test_images_and_several_videos_in_several_turns(film: str, selector: NamedFrames) -> None:
    image = Image.new("RGB", (8, 8))
    chat = [
        {"role": "system", "content": "You are 1 helper."},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": image},
                {"type": "video", "video": film},
                {"type": "text", "text": "2 or 3?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
        {"role": "user", "content": [{"type": "video", "video": film}, {"type": "text", "text": "5 or 6?"}]},
    ]
    for query, expected in {"last_user": [5, 6], "first_user": [2, 3], "all": [2, 3, 5, 6]}.items():
        result = select_messages(chat, selector, num_frames=len(expected), query=query)
        assert [s.indices.tolist() for s in result.selections] == [expected, expected]
    per_video = select_messages(chat, selector, num_frames=1, query=lambda c: ["frame 7", ("frame 8", ["yes", "no"])])
    assert [s.indices.tolist() for s in per_video.selections] == [[7], [8]]
    assert per_video[0][1]["content"][0]["image"] is image
    assert per_video[0][0] == chat[0]
    assert selector.asked[-2:] == [("frame 7", None), ("frame 8", ["yes", "no"])]


def test_batches_of_conversations_read_each_video_once(film: str, selector: NamedFrames, monkeypatch: Any) -> None:
    reads: list[Any] = []
    stock = selector.encode
    monkeypatch.setattr(selector, "encode", lambda video, **k: (reads.append(video), stock(video, **k))[1])
    chats = [chat_about(film, "1 and 2"), [{"role": "user", "content": "no video here"}], chat_about(film, "5 and 6")]
    result = select_messages(chats, selector, num_frames=2)
    assert [s.indices.tolist() for s in result.selections] == [[1, 2], [5, 6]]
    assert len(result[0]) == 3
    assert result[0][1] == chats[1]
    assert len(result[1]["video_metadata"]) == 2
    assert len(reads) == 1


def test_a_video_under_two_names_is_read_once(film: str, selector: NamedFrames, monkeypatch: Any) -> None:
    reads: list[Any] = []
    stock = selector.encode
    monkeypatch.setattr(selector, "encode", lambda video, **k: (reads.append(video), stock(video, **k))[1])
    monkeypatch.chdir(Path(film).parent)
    names = [film, Path(film).name, Path(film).as_uri()]
    result = select_messages([chat_about(name, "1 and 2") for name in names], selector, num_frames=2)
    assert [s.indices.tolist() for s in result.selections] == [[1, 2]] * 3
    assert len(reads) == 1


def test_parts_of_one_video_are_not_mistaken_for_each_other(film: str, selector: NamedFrames) -> None:
    chats = [chat_about(film, "1 and 9") for _ in range(3)]
    chats[1][0]["content"][0] |= {"video_end": 4.5}
    chats[2][0]["content"][0] |= {"video_start": 4.5}
    result = select_messages(chats, selector, num_frames=2)
    first, early, late = (s.timestamps for s in result.selections)
    assert first.tolist() == [TIMES[1], TIMES[9]]
    assert early.max() < 4.5 < late.max()
    assert TIMES[1] in early
    assert TIMES[9] in late
    assert late.min() >= 4.0  # the frame that is on screen at 4.5 s


def test_a_chat_without_a_question_is_an_error(film: str, selector: NamedFrames) -> None:
    silent = [{"role": "user", "content": [{"type": "video", "video": film}]}]
    with pytest.raises(InputError, match="the chat has a video but no question"):
        select_messages(silent, selector)
    with pytest.raises(InputError, match="conversation 2 has a video but no question"):
        select_messages([chat_about(film), silent], selector)
    with pytest.raises(InputError, match="query must be one of"):
        select_messages(silent, selector, query="the_last")
    with pytest.raises(InputError, match="1 videos, but query\\(\\) gave 2 questions"):
        select_messages(silent, selector, query=lambda c: ["a", "b"])
    with pytest.raises(InputError, match="as text, not ''"):
        select_messages(silent, selector, query=lambda c: "")
    assert selector.asked == []


def test_an_unreadable_video_is_named_with_its_conversation(film: str, selector: NamedFrames) -> None:
    content = [{"type": "video", "video": film}, {"type": "video", "video": "gone.mp4"}, {"type": "text", "text": "1?"}]
    with pytest.raises(VideoOpenError, match=r"conversation 2, video 2 \(gone\.mp4\): "):
        select_messages([chat_about(film), [{"role": "user", "content": content}]], selector)


def test_what_is_no_video_is_an_error(selector: NamedFrames) -> None:
    with pytest.raises(InputError, match="video 1 is a int"):
        select_messages(chat_about(7), selector)
    with pytest.raises(VideoOpenError, match=r"video 1 .*gone\.png"):
        select_messages(chat_about(["gone.png"]), selector)
    with pytest.raises(InputError, match="selector must be a FrameSelector"):
        select_messages(chat_about("film.mp4"), 3)


def test_a_chat_without_videos_stays_as_it_is(selector: NamedFrames) -> None:
    chat = [{"role": "user", "content": "Hello"}]
    messages, kwargs = select_messages(chat, selector)
    assert messages == chat
    assert kwargs == {}


def test_the_sound_goes_along_when_asked(film: str, selector: NamedFrames) -> None:
    messages, _ = select_messages(chat_about(film), selector, num_frames=2, audio=True)
    assert messages[0]["content"][1] == {"type": "audio", "audio": film}


# -- fitting a model ----------------------------------------------------------------------------------


def test_text_for_a_model_without_time(chat: Any, selector: NamedFrames) -> None:
    messages, _ = select_messages(chat, selector, num_frames=6, model="llava_onevision")
    assert messages[0]["content"][1]["text"].startswith("The video lasts for 7.67 seconds, and 6 frames are selected")


@pytest.mark.parametrize(
    "model_type", ["qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision", "smolvlm", "gemma4", "qwen2_5_omni"]
)
@pytest.mark.parametrize("timestamps", ["auto", "metadata", "text", "interleave"])
def test_rewritten_messages_and_the_wrapper_give_the_same_tensors(model_type: str, timestamps: str, chat: Any) -> None:
    from refocus_select.adapters import with_frame_selection

    ask = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    stock = tiny.build(model_type)
    messages, kwargs = select_messages(chat, NamedFrames(), num_frames=6, model=stock, timestamps=timestamps)
    by_hand = stock.apply_chat_template(messages, **nested(**kwargs), **ask)
    wrapped = with_frame_selection(tiny.build(model_type), NamedFrames(), num_frames=6, timestamps=timestamps)
    by_itself = wrapped.apply_chat_template(chat, **ask)
    assert set(by_hand) == set(by_itself)
    for key in by_hand:
        assert torch.equal(torch.as_tensor(by_hand[key]), torch.as_tensor(by_itself[key])), key


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("duplicate", [100, 100, 333, 333, 3333, 3333, 3367, 3367]),
        ("near", [100, 333, 3333, 3367]),
        ("ignore", [100, 333, 3333, 3367]),
        ("pairs", [100, 1000, 333, 1000]),  # the frame half a second later
    ],
)
def test_frames_for_a_model_that_merges_two(merge: str, expected: list[int], chat: Any, selector: NamedFrames) -> None:
    messages, kwargs = select_messages(chat, selector, num_frames=4, model="qwen3_vl", temporal_merge=merge)
    assert kwargs["video_metadata"][0]["frames_indices"] == expected
    by_time = {round(1000 * t): i for i, t in enumerate(TIMES)}
    assert greys(frames_in(messages)[0]) == [by_time[ms] for ms in expected]


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("duplicate", [100] * 4 + [333] * 4 + [3333] * 4 + [3367] * 4 + [7000] * 4),
        ("ignore", [100, 333, 3333, 3367, 7000]),
        ("near", [100, 100, 333, 333, 3333, 3333, 3367, 3367] + [7000] * 4),
        # At half, one and one and a half seconds, or the next frame behind; the one at 3.333 s is too far from 2 s.
        ("pairs", [100, 1000, 2000, 2000, 333, 1000, 2000, 2000]),
    ],
)
def test_frames_for_a_model_that_merges_four(merge: str, expected: list[int], film: str, selector: NamedFrames) -> None:
    chat = chat_about(film, "What is in 1, 2, 5, 6 and 10?")
    messages, kwargs = select_messages(chat, selector, num_frames=5, model="kimi_k25", temporal_merge=merge)
    assert kwargs["video_metadata"][0]["frames_indices"] == expected
    by_time = {round(1000 * t): i for i, t in enumerate(TIMES)}
    assert greys(frames_in(messages)[0]) == [by_time[ms] for ms in expected]


def test_groups_of_four_stay_in_order_and_end_with_the_last_frame(film: str, selector: NamedFrames) -> None:
    chat = chat_about(film, "What is in 3, 9 and 11?")
    messages, kwargs = select_messages(
        chat, selector, num_frames=12, model="kimi_k25", temporal_merge="pairs", timestamps="interleave"
    )
    groups = [[1000, 2000, 2000, 2000], [6667, 7667, 7667, 7667], [7667] * 4]
    assert [metadata["frames_indices"] for metadata in kwargs["video_metadata"]] == groups
    assert [len(frames) for frames in frames_in(messages)] == [4, 4, 4]


def test_times_between_milliseconds_are_rounded(selector: NamedFrames) -> None:
    times = [k * 1001 / 30000 for k in range(12)]  # 29.97 frames per second
    video = open_video(np.stack([picture(k) for k in range(12)]), timestamps=times)
    input_format = InputFormat.of("qwen3_vl", temporal_merge="duplicate")
    (clip,) = input_format.clips(selector.select(video, "1, 2, 5, 8", num_frames=4))
    assert clip.milliseconds == (33, 33, 67, 67, 167, 167, 267, 267)
    assert clip.metadata["frames_indices"] == list(clip.milliseconds)


@pytest.mark.parametrize("model_type", ["qwen3_vl", "kimi_k25", "internvl"])
@pytest.mark.parametrize("merge", ["auto", "duplicate", "pairs", "ignore"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_number_of_frames_loses_one(model_type: str, merge: str, count: int, film: str) -> None:
    chat = chat_about(film, "What is in 1, 2, 5, 9 and 10?")
    stock = tiny.build(model_type)
    _, kwargs = select_messages(chat, NamedFrames(), num_frames=count, model=stock, temporal_merge=merge)
    shown = kwargs["video_metadata"][0]["frames_indices"]
    if merge == "pairs" and model_type != "internvl":
        assert len(shown) >= count
    else:
        assert set(shown) == set([100, 333, 3333, 6667, 7000][:count])


def test_frames_within_a_second_share_a_group() -> None:
    assert near([0.0, 1.0, 2.0, 3.5, 9.0], 2) == [[0, 1], [2], [3], [4]]
    assert near([0.0, 0.5, 1.0, 1.5, 2.5, 9.0], 4) == [[0, 1, 2, 3], [4], [5]]
    pairs = InputFormat.of("qwen3_vl")
    assert pairs.groups([0.0, 0.9, 5.0]) == [[0, 1], [2, 2]]
    assert InputFormat.of("kimi_k25").groups([0.0, 0.9, 1.8, 9.0]) == [[0, 0, 1, 2], [3, 3, 3, 3]]
    assert InputFormat.of("qwen3_vl", temporal_merge="ignore").groups([0.0, 4.0, 9.0]) == [[0, 1], [2, 2]]


def test_pairs_at_the_end_of_the_video_repeat_the_last_frame(film: str, selector: NamedFrames) -> None:
    _, kwargs = select_messages(
        chat_about(film, "11"), selector, num_frames=2, model="qwen3_vl", temporal_merge="pairs"
    )
    assert kwargs["video_metadata"][0]["frames_indices"] == [7667, 7667]


def test_pairs_of_sparse_pictures_do_not_merge_distant_ones(selector: NamedFrames) -> None:
    """One picture every ten seconds, as in an album or a time lapse."""
    pictures = [picture(k) for k in range(6)]
    block = {"type": "video", "video": pictures, "timestamps": [10.0 * k for k in range(6)]}
    chat = [{"role": "user", "content": [block, {"type": "text", "text": "What is in 1 and 3?"}]}]
    messages, kwargs = select_messages(chat, selector, num_frames=4, model="qwen3_vl", temporal_merge="pairs")
    assert kwargs["video_metadata"][0]["frames_indices"] == [10000, 10000, 30000, 30000]
    assert greys(np.stack(frames_in(messages)[0])) == [1, 1, 3, 3]


@pytest.mark.parametrize(("num_frames", "moments"), [(1, 1), (2, 1), (5, 3), (6, 3)])
def test_an_odd_k_fills_its_last_pair(num_frames: int, moments: int, chat: Any, selector: NamedFrames) -> None:
    _, kwargs = select_messages(chat, selector, num_frames=num_frames, model="qwen3_vl", temporal_merge="pairs")
    assert len(kwargs["video_metadata"][0]["frames_indices"]) == 2 * moments


def test_unknown_settings_are_errors(chat: Any, selector: NamedFrames) -> None:
    with pytest.raises(InputError, match="timestamps must be one of"):
        select_messages(chat, selector, timestamps="yes")
    with pytest.raises(InputError, match="temporal_merge must be one of"):
        select_messages(chat, selector, temporal_merge="three")
    with pytest.raises(InputError, match="Molmo 2 takes one video only"):
        select_messages(chat, selector, model="molmo2", timestamps="interleave")
    with pytest.raises(InputError, match="frames must be"):
        select_messages(chat, selector, frames="some")


# -- questions ----------------------------------------------------------------------------------------

VIDEO_MME = """Select the best answer to the following multiple-choice question based on the video. \
Respond with only the letter (A, B, C, or D) of the correct option.
How many goals are scored?
A. One.
B. Two.
C. Three.
D. Four.
Answer with the option's letter from the given choices directly."""


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        (VIDEO_MME, "How many goals are scored?", ("One.", "Two.", "Three.", "Four.")),
        ("Question: Who wins?\nOptions:\n(A) Red\n(B) Blue\nOnly give the best option.", "Who wins?", ("Red", "Blue")),
        ("What happens at A. Square?", "What happens at A. Square?", None),
        ("Who wins?\nB. Red\nA. Blue", "Who wins?\nB. Red\nA. Blue", None),
        ("Describe it.", "Describe it.", None),
    ],
)
def test_benchmark_prompts_come_apart(text: str, question: str, options: Any) -> None:
    assert split_multiple_choice(text) == Question(question, options)


def test_multiple_choice_is_a_query(film: str, selector: NamedFrames) -> None:
    select_messages(chat_about(film, "Is it 1 or 2?\nA. 3\nB. 4"), selector, num_frames=2, query=multiple_choice)
    assert selector.asked == [("Is it 1 or 2?", ["3", "4"])]


def test_blocks_of_one_message_are_one_question() -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert questions_of(chat, "last_user", 2) == [Question("a\nb")] * 2
    with pytest.raises(InputError, match="no question"):
        questions_of([], "all", 1)
