"""Saving trained selectors with a model card, and uploading them to the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ..files import write_text
from ..hub import HubOptions, upload_folder
from ..models.checkpoint import save_model
from .card import model_card


class Shareable:
    """What selectors with weights of their own have besides: a folder that `from_pretrained` loads, also on the Hub."""

    model: Any
    name: str

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.safetensors, what else belongs to it and, if there is none yet, a model card."""
        target = Path(folder)
        save_model(self.model, target)
        self._save_more(target)
        card = target / "README.md"
        if not card.exists():
            write_text(card, model_card(self.model, self.name))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a frame selector",
    ) -> str:
        """Create the repository if needed and upload what `save_pretrained` writes.

        Returns:
            The address of the commit.

        Raises:
            SelectorLoadError: if the Hub refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            write_text(Path(folder) / "README.md", model_card(self.model, repo_id))
            self.save_pretrained(folder)
            options = HubOptions(revision, token)
            return upload_folder(Path(folder), repo_id, options, private=private, commit_message=commit_message)

    def _save_more(self, folder: Path) -> None:
        """Write what is not in the model, such as a tokenizer."""
