"""One folder per model line; the folder name is the kind, and `load_family` imports only the one that is asked for."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, cast

from model.family import Family, Processor
from model.tokenizer import WordPiece


class FamilyKind(Protocol):
    """What the module of a kind offers."""

    @property
    def Config(self) -> type[Any]:
        """The family's config."""
        ...

    def build(self, config: Any) -> Family:
        """Build the family with fresh weights."""
        ...

    def build_processor(self, config: Any, tokenizer: WordPiece) -> Processor:
        """Build what turns examples into the family's batches."""
        ...


def family_kinds() -> tuple[str, ...]:
    """List the kinds there are: the folders beside this file."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def load_family(spec: Mapping[str, Any]) -> FamilyKind:
    """Import the module of the kind that `spec["kind"]` names.

    Raises:
        ValueError: no kind, or an unknown one; the message names the nearest.
    """
    kinds = family_kinds()
    kind = str(spec.get("kind"))
    if kind not in kinds:
        close = difflib.get_close_matches(kind, kinds, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(kinds)}"
        raise ValueError(f"kind={kind!r} is no model family: {hint}")
    return cast(FamilyKind, importlib.import_module(f"{__name__}.{kind}"))
