"""Finding the files of a selector: in a folder, or on the Hugging Face Hub, with errors that tell the way out."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .errors import SelectorLoadError
from .plain_text import parse_json

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
VISION_CONFIG_FILE = "vision_config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
MODULES_FILE = "modules.json"  # what makes a folder a model of sentence-transformers
_Get = Callable[..., "Path | None"]
_MOST_JSON = 64 * 2**20  # bytes; the index of a checkpoint of thousands of tensors is below a hundredth of it
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class HubOptions:
    """How to reach the Hub; the arguments of huggingface_hub.

    Attributes:
        revision: branch, tag or commit.
        token: access token; None for the one that `hf auth login` stored, False for none.
        cache_dir: where downloads are kept.
        local_files_only: use what is in the cache, never the network.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one selector on this machine, all of them complete.

    Attributes:
        name: the folder or Hub id that was asked for.
        config: `config.json`.
        weights: the safetensors files.
        vision_config: `vision_config.json`, if there is one.
        tokenizer: `tokenizer.json`, if there is one.
    """

    name: str
    config: Path
    weights: tuple[Path, ...]
    vision_config: Path | None = None
    tokenizer: Path | None = None


def find_checkpoint(name_or_path: str | os.PathLike[str], options: HubOptions | None = None) -> CheckpointFiles:
    """Find a selector's files, downloading them if the name is a Hub id.

    An existing folder wins over a Hub id of the same name.

    Raises:
        SelectorLoadError: for a missing folder or repository, a gated one, no network, a repository without
            safetensors weights, or an incomplete set of files.
    """
    name = os.fspath(name_or_path)
    get: _Get
    if os.path.isdir(name):
        get = partial(_local_file, Path(name))
    elif os.path.exists(name):
        raise SelectorLoadError(f"{name} is a file; give the folder that holds config.json and the weights")
    elif isinstance(name_or_path, os.PathLike) or not is_hub_id(name):
        raise SelectorLoadError(f"there is no folder {name}; check the path, or give a Hub id 'owner/name'")
    else:
        get = partial(hub_file, name, options=options or HubOptions())

    config = get(CONFIG_FILE)
    if config is None:
        raise SelectorLoadError(
            f"{name} has no {CONFIG_FILE}, so it is not a selector; check the name and the revision"
        )
    if not os.path.isdir(name):
        # All further files come from the very commit of the first, and what is cached of it needs no network.
        get = partial(hub_file, name, options=replace(options or HubOptions(), revision=config.parent.name))
    # The small files first: where the weights are in the cache, it is then known whether these exist.
    vision, tokenizer = get(VISION_CONFIG_FILE, lenient=True), get(TOKENIZER_FILE, lenient=True)
    return CheckpointFiles(name, config, _weights(name, get), vision, tokenizer)


def is_hub_id(name: str) -> bool:
    """Whether a name that is not a folder can be a Hub id."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def has_modules(name_or_path: str | os.PathLike[str], options: HubOptions) -> bool:
    """Whether a folder or a repository of the Hub holds a model of sentence-transformers.

    Raises:
        SelectorLoadError: if the repository is not there, or is not to be read.
    """
    name = os.fspath(name_or_path)
    if os.path.isdir(name):
        return (Path(name) / MODULES_FILE).is_file()
    if isinstance(name_or_path, os.PathLike) or not is_hub_id(name):
        return False
    return hub_file(name, MODULES_FILE, options=options, lenient=True) is not None


def _weights(name: str, get: _Get) -> tuple[Path, ...]:
    single = get(WEIGHTS_FILE, lenient=True)
    if single is not None:
        return (single,)
    index = get(INDEX_FILE)
    if index is None:
        if any(get(pickle, probe=True) for pickle in _PICKLES):
            raise SelectorLoadError(
                f"{name} holds only pickle weights ({_PICKLES[0]}), which can run code when loaded and are refused; "
                "convert them to safetensors first (safetensors.torch.save_file on a machine you trust)"
            )
        raise SelectorLoadError(f"{name} has neither {WEIGHTS_FILE} nor {INDEX_FILE}; check the name and the revision")
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) and Path(s).name == s for s in shards.values()):
        raise SelectorLoadError(f"{index} has no usable weight_map; download the checkpoint again")
    paths = []
    for shard in sorted(set(shards.values())):
        path = get(shard)
        if path is None:
            raise SelectorLoadError(f"{name} lacks {shard}, which {INDEX_FILE} names; download the checkpoint again")
        paths.append(path)
    return tuple(paths)


def _local_file(folder: Path, filename: str, *, probe: bool = False, lenient: bool = False) -> Path | None:
    path = folder / filename
    return path if path.is_file() else None


def hub_file(
    repo: str, filename: str, *, options: HubOptions, probe: bool = False, lenient: bool = False
) -> Path | None:
    """One file of a Hub repository, from the cache or downloaded.

    huggingface_hub writes to a temporary name and moves complete files only, so a broken download is never used.

    Args:
        repo: Hub id.
        filename: path in the repository.
        options: revision, token, cache.
        probe: do not download; tell whether the file exists (the path returned is then not on this machine).
        lenient: without network, take a file that is not in the cache for absent.

    Returns:
        The local path, or None if the repository has no such file.

    Raises:
        SelectorLoadError: for everything else that stands in the way.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with hub_errors(repo, options):
        if probe:
            if options.local_files_only:
                return None
            found = HfApi(token=options.token).file_exists(repo, filename, revision=options.revision)
            return Path(filename) if found else None
        if _known_absent(repo, filename, options):
            return None
        try:
            return Path(
                hf_hub_download(
                    repo,
                    filename,
                    revision=options.revision,
                    token=options.token,
                    cache_dir=options.cache_dir,
                    local_files_only=options.local_files_only,
                )
            )
        except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, but it means "not reached"
            if lenient:
                return None
            raise
        except EntryNotFoundError:
            return None
    raise AssertionError("unreachable")


def _known_absent(repo: str, filename: str, options: HubOptions) -> bool:
    """Whether an earlier look at the same commit found that there is no such file; branches may have moved since."""
    if not re.fullmatch(r"[0-9a-f]{40}", options.revision or ""):
        return False
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, cache_dir=options.cache_dir, revision=options.revision)
    return found is _CACHED_NO_EXIST


def upload_folder(
    folder: Path,
    repo_id: str,
    options: HubOptions,
    *,
    private: bool | None = None,
    commit_message: str = "Upload a frame selector",
) -> str:
    """Create the repository if needed and upload a folder.

    Args:
        folder: what is uploaded.
        repo_id: Hub id.
        options: token, and the revision to write to.
        private: of a repository that is created.
        commit_message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        SelectorLoadError: if the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=options.token)
    with hub_errors(repo_id, options):
        api.create_repo(repo_id, private=private, exist_ok=True)
        info = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=options.revision, commit_message=commit_message
        )
    return str(info.commit_url)


@contextmanager
def hub_errors(repo: str, options: HubOptions) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours, each with its remedy."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise SelectorLoadError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then run `hf auth login` or pass "
            "token=…"
        ) from error
    except RepositoryNotFoundError as error:
        raise SelectorLoadError(
            f"there is no repository {repo} on the Hub (and no such folder here), or it is private: check the name; "
            "for a private one run `hf auth login` or pass token=…"
        ) from error
    except RevisionNotFoundError as error:
        raise SelectorLoadError(f"{repo} has no revision {options.revision!r}; see its branches and tags") from error
    except HFValidationError as error:
        raise SelectorLoadError(f"{repo!r} is neither a folder nor a valid Hub id: {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SelectorLoadError(
            f"{repo} is not complete in the local cache and the Hub was not reached (no network, HF_HUB_OFFLINE, or "
            "local_files_only=True): load it once with network access, or give a folder that holds the files"
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise SelectorLoadError(
                f"access to {repo} was refused (HTTP {status}): run `hf auth login` or pass a token=… that may use it; "
                f"if it is gated, accept its terms at https://huggingface.co/{repo}"
            ) from error
        raise SelectorLoadError(f"the Hub answered HTTP {status} for {repo}: try again later ({error})") from error
    except SelectorLoadError:
        raise
    except Exception as error:  # of the HTTP library in use: connection lost, fewer bytes than announced, disk full
        raise SelectorLoadError(f"the connection to the Hub for {repo} broke off: try again ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        SelectorLoadError: if the file is unreadable or holds something else.
    """
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SelectorLoadError(f"{path} is unreadable or damaged ({error}); download it again") from error
    if not isinstance(value, dict):
        raise SelectorLoadError(f"{path} does not hold a JSON object; download it again")
    return value
