"""Tokenizer, chat template, segments to ids, the shared prefix. Knows no engine and no agent."""

from rlm_runtime.prompt.layout import (
    CONNECTIVE,
    Document,
    Layout,
    NameLine,
    Prompt,
    ScoredPrompt,
    shared_prefix,
)
from rlm_runtime.prompt.template import ChatTemplate
from rlm_runtime.prompt.tokenizer import Tokenizer

__all__ = [
    "CONNECTIVE",
    "ChatTemplate",
    "Document",
    "Layout",
    "NameLine",
    "Prompt",
    "ScoredPrompt",
    "Tokenizer",
    "shared_prefix",
]
