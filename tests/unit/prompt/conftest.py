from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer

MakeFolder = Callable[..., Path]


def byte_tokenizer(special: Sequence[str], plain: Sequence[str] = ()) -> Library:
    """One token a byte, and these added tokens, which are marked as special or not."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Library(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    library.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain])
    return library


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes a model's folder: a byte tokenizer with these added tokens, and a chat template."""

    def make(
        template: str | None = None,
        special: Sequence[str] = (),
        plain: Sequence[str] = (),
        config: dict[str, object] | None = None,
    ) -> Path:
        byte_tokenizer(special, plain).save(str(tmp_path / "tokenizer.json"))
        if template is not None:
            (tmp_path / "chat_template.jinja").write_text(template)
        if config is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return tmp_path

    return make


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.from_folder(model_dir)


@pytest.fixture(scope="session")
def template(model_dir: Path, tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate.from_folder(model_dir, tokenizer)


@pytest.fixture(scope="session")
def layout(tokenizer: Tokenizer, template: ChatTemplate) -> Layout:
    return Layout(tokenizer, template, block_size=32)
