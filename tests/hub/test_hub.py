"""The Hub through its real client, against a server of our own. Each case is a fresh process: the client reads its
address and its offline switch when it is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refocus_select.errors import SelectorLoadError
from refocus_select.hub import find_checkpoint

from ..models.tiny import selector_folder
from ..models.tiny_encoders import tiny_clip
from .server import COMMIT, FakeHub, Repo

ROOT = Path(__file__).parents[2]

FIND = """
import json, sys
from refocus_select.errors import SelectorLoadError
from refocus_select.hub import HubOptions, find_checkpoint
results = []
for name, options in json.loads(sys.stdin.read()):
    try:
        found = find_checkpoint(name, HubOptions(**options))
        results.append({"weights": [p.read_bytes().hex() for p in found.weights], "config": found.config.read_text(),
                        "tokenizer": found.tokenizer is not None, "vision": found.vision_config is not None})
    except SelectorLoadError as error:
        results.append({"error": str(error)})
print(json.dumps(results))
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        yield running


def run(hub: FakeHub, cache: Path, code: str, sent: Any, **environment: str) -> Any:
    names = ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")
    env = {k: v for k, v in os.environ.items() if k not in names and "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(sent), env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def find(hub: FakeHub, cache: Path, *asked: Any, **environment: str) -> list[dict[str, Any]]:
    """`find_checkpoint` for each (name, options)."""
    pairs = [(one, {}) if isinstance(one, str) else one for one in asked]
    return run(hub, cache, FIND, pairs, **environment)


def single(**more: bytes) -> Repo:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    return Repo(files | {name.replace("__", "."): content for name, content in more.items()})


def sharded(*names: str) -> Repo:
    where = {f"w{i}": name for i, name in enumerate(("a.safetensors", "b.safetensors"))}
    index = json.dumps({"weight_map": where}).encode()
    return Repo({"config.json": b"{}", "model.safetensors.index.json": index} | {n: n.encode() for n in names})


def test_files_are_found_and_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["me/single"] = single(tokenizer__json=b"{}", vision_config__json=b"{}")
    hub.repos["me/shards"] = sharded("a.safetensors", "b.safetensors")
    one, two = find(hub, tmp_path, "me/single", "me/shards")
    assert one == {"weights": [b"weights".hex()], "tokenizer": True, "vision": True, "config": "{}"}
    assert two["weights"] == [b"a.safetensors".hex(), b"b.safetensors".hex()]
    assert not two["tokenizer"]
    # A branch may move between two requests: everything behind the first file comes from its commit.
    asked = [r.split("/resolve/")[1] for r in hub.requests if r.startswith("HEAD /me/single/")]
    later = ("vision_config.json", "tokenizer.json", "model.safetensors")
    assert asked == ["main/config.json", *(f"{COMMIT}/{name}" for name in later)]

    # Once complete, they are found again without the network: offline by switch, by argument, and with a dead server.
    # What another tool downloaded is accepted too, though nobody noted which optional files do not exist.
    for noted in (tmp_path / "hub").glob("models--*/.no_exist"):
        shutil.rmtree(noted)
    hub.requests.clear()
    again = find(hub, tmp_path, "me/single", "me/shards", HF_HUB_OFFLINE="1")
    assert again == [one, two]
    local = {"local_files_only": True}
    assert find(hub, tmp_path, ("me/single", local), ("me/shards", local)) == [one, two]
    assert hub.requests == []


def test_what_stands_in_the_way_is_named_with_its_remedy(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["me/gated"] = Repo(single().files, gate=401, token="opensesame")
    hub.repos["me/asked"] = Repo(single().files, gate=403, token="opensesame")
    hub.repos["me/bare"] = Repo({"README.md": b"hello"})
    hub.repos["me/empty"] = Repo({"config.json": b"{}"})
    hub.repos["me/pickle"] = Repo({"config.json": b"{}", "pytorch_model.bin": b"\x80\x04"})
    hub.repos["me/holes"] = sharded("a.safetensors")
    hub.repos["me/odd"] = Repo(
        {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"w": "../../x"}}'}
    )
    hub.repos["me/fine"] = single()
    cases = {
        "me/gated": "accept its terms at https://huggingface.co/me/gated",
        "me/asked": "accept its terms at https://huggingface.co/me/asked",
        "me/missing": "there is no repository me/missing on the Hub",
        "me/bare": "has no config.json, so it is not a selector",
        "me/empty": "neither model.safetensors nor model.safetensors.index.json",
        "me/pickle": "only pickle weights",
        "me/holes": "lacks b.safetensors, which model.safetensors.index.json names",
        "me/odd": "no usable weight_map",
        "me/what ever": "neither a folder nor a valid Hub id",
    }
    results = find(hub, tmp_path, *cases, ("me/fine", {"revision": "v9"}), ("me/asked", {"token": "opensesame"}))
    for (name, message), result in zip(cases.items(), results, strict=False):
        assert message in result.get("error", ""), name
    assert "no revision 'v9'" in results[-2]["error"]
    assert results[-1]["weights"] == [b"weights".hex()]


def test_no_network(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["me/fine"] = single()
    (result,) = find(hub, tmp_path, "me/fine", HF_HUB_OFFLINE="1")
    assert "load it once with network access, or give a folder" in result["error"]
    (result,) = find(hub, tmp_path, ("me/fine", {"local_files_only": True}))
    assert "local_files_only=True" in result["error"]


def test_a_dead_network(hub: FakeHub, tmp_path: Path) -> None:
    """The address answers nobody: what is in the cache is used, the rest is an error."""
    hub.repos["me/fine"] = single()
    code = (
        f"import huggingface_hub.utils._http as h; h.time.sleep = lambda s: None\n{FIND}"  # do not wait between retries
    )
    (online,) = run(hub, tmp_path, FIND, [("me/fine", {})])
    dead = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    cached, absent = run(hub, tmp_path, code, [("me/fine", {}), ("me/other", {})], **dead)
    assert cached == online
    assert "load it once with network access, or give a folder" in absent["error"]


def test_a_broken_download_is_never_used(hub: FakeHub, tmp_path: Path) -> None:
    repo = hub.repos["me/fine"] = single(model__safetensors=b"0123456789" * 5000)
    repo.cut.add("model.safetensors")
    (result,) = find(hub, tmp_path, "me/fine")
    assert "broke off" in result["error"]
    (offline,) = find(hub, tmp_path, "me/fine", HF_HUB_OFFLINE="1")
    assert "not complete in the local cache" in offline["error"]
    repo.cut.clear()
    (whole,) = find(hub, tmp_path, "me/fine")
    assert bytes.fromhex(whole["weights"][0]) == repo.files["model.safetensors"]


POLICY = """
import json, sys
import numpy as np
from refocus_select import FrameSelector
from refocus_select.errors import SelectorLoadError
from refocus_select.video import open_video
folder, results = json.loads(sys.stdin.read()), {}
video = open_video(np.random.default_rng(0).integers(0, 255, (24, 16, 20, 3), dtype=np.uint8), fps=4.0)
local = FrameSelector.from_pretrained(folder, device="cpu")
results["address"] = local.push_to_hub("me/tiny")
remote = FrameSelector.from_pretrained("me/tiny", device="cpu")
results["same"] = local.fingerprint == remote.fingerprint
results["type"] = type(remote).__name__
results["picks"] = [s.select(video, "Who?", num_frames=4).indices.tolist() for s in (local, remote)]
results["official"] = FrameSelector.from_pretrained("authors/official", device="cpu").fingerprint == local.fingerprint
try:
    FrameSelector.from_pretrained("authors/bald", device="cpu")
except SelectorLoadError as error:
    results["bald"] = str(error)
local.push_to_hub("EleutherAI/gpt-neox-20b")  # now the default tokenizer is there
results["default"] = FrameSelector.from_pretrained("authors/bald", device="cpu").fingerprint == local.fingerprint
try:
    local.push_to_hub("me/closed")
except SelectorLoadError as error:
    results["closed"] = str(error)
print(json.dumps(results))
"""


def test_a_policy_goes_up_and_comes_back(hub: FakeHub, tmp_path: Path) -> None:
    folder = selector_folder(tmp_path / "tiny")
    names = ("config.json", "vision_config.json", "model.safetensors")
    official = {name: (folder / name).read_bytes() for name in names}
    hub.repos["authors/bald"] = Repo(dict(official))  # no tokenizer, and at first the default one is not there
    hub.repos["authors/official"] = Repo(official | {"tokenizer.json": (folder / "tokenizer.json").read_bytes()})
    hub.repos["me/closed"] = Repo(gate=403)
    results = run(hub, tmp_path / "cache", POLICY, str(folder), HF_TOKEN="dummy")
    assert results["address"].startswith(f"{hub.url}/me/tiny/commit/")
    assert results["same"]
    assert results["official"]
    assert results["type"] == "PolicySelector"
    assert results["picks"][0] == results["picks"][1]
    assert "put the tokenizer.json of EleutherAI/gpt-neox-20b into the folder" in results["bald"]
    assert results["default"]
    assert "HTTP 403" in results["closed"]
    uploaded = hub.repos["me/tiny"].files
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert b'FrameSelector.from_pretrained("me/tiny")' in uploaded["README.md"]
    assert uploaded["README.md"].startswith(b"---\nlibrary_name: refocus-select\n")


VECTORS = """
import json, sys
from refocus_select import FrameSelector
json.loads(sys.stdin.read())
local = FrameSelector.from_pretrained("mini-policy", device="cpu")
local.push_to_hub("me/vectors", commit_message="First")
remote = FrameSelector.from_pretrained("me/vectors", device="cpu")
print(json.dumps([local.fingerprint == remote.fingerprint, type(remote).__name__]))
"""


def test_a_policy_over_vectors_goes_up_and_comes_back(hub: FakeHub, tmp_path: Path) -> None:
    assert run(hub, tmp_path / "cache", VECTORS, "", HF_TOKEN="dummy") == [True, "VectorPolicySelector"]
    uploaded = hub.repos["me/vectors"].files
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors"]
    assert b'FrameSelector.from_pretrained("me/vectors")' in uploaded["README.md"]


def test_local_names(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    for name, message in (
        (file, "is a file; give the folder"),
        (tmp_path / "nowhere", "there is no folder"),
        ("./nowhere", "there is no folder"),
        (tmp_path, r"has no config\.json"),
    ):
        with pytest.raises(SelectorLoadError, match=message):
            find_checkpoint(name)
    (tmp_path / "config.json").write_text("{}")
    assert find_checkpoint(tmp_path).weights == (file,)
    file.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(SelectorLoadError, match="only pickle weights"):
        find_checkpoint(tmp_path)


ENCODE = """
import json, sys
from refocus_select.encoders import load_encoder
name, options = json.loads(sys.stdin.read())
print(json.dumps(load_encoder(name, device="cpu", **options).encode_text(["a cat", "two dogs"]).tolist()))
"""


def test_an_encoder_from_the_cache_needs_no_network(hub: FakeHub, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "encoder")
    hub.repos["me/clip"] = Repo({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
    first = run(hub, tmp_path / "cache", ENCODE, ("me/clip", {}))
    hub.requests.clear()
    assert run(hub, tmp_path / "cache", ENCODE, ("me/clip", {}), HF_HUB_OFFLINE="1") == first
    assert run(hub, tmp_path / "cache", ENCODE, ("me/clip", {"local_files_only": True})) == first
    assert hub.requests == []
