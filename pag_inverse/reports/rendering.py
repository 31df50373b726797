"""Pages from templates: tables, pictures inside the page, and the template engine."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from pag_inverse.data.images import Picture

if TYPE_CHECKING:
    from jinja2 import Environment

_SHOWN_SIDE = 256  # smaller pictures are enlarged by nearest neighbour, since a browser would blur them


@dataclass(frozen=True)
class Table:
    """A table of texts; `values` are what its rows sort by, "" last. `kind` is its class in the style sheet."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: Sequence[Sequence[str]] | None = None
    kind: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture of a page under its caption; `source` is a data URI."""

    caption: str
    source: str


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill a template of `templates/`; in HTML every text is escaped."""
    return _environment().get_template(template).render(content)


def photograph(caption: str, picture: Picture) -> Figure:
    """A picture (H, W, 3) as a JPEG without colour subsampling."""
    factor = max(1, _SHOWN_SIDE // max(picture.shape[:2]))
    large = PIL.Image.fromarray(np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1))
    buffer = io.BytesIO()
    large.save(buffer, format="JPEG", quality=92, subsampling=0)
    return Figure(caption, f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def plot(caption: str, png: bytes) -> Figure:
    """A plot, which is a PNG already."""
    return Figure(caption, f"data:image/png;base64,{base64.b64encode(png).decode()}")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pag_inverse.reports"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown_text"] = _markdown_text
    return environment


def _markdown_text(text: str) -> str:
    """A text that stays within its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
