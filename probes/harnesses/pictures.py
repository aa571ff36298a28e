"""Pictures as text, for messages that travel as JSON."""

import base64
import io
from pathlib import Path

from PIL import Image


def data_uri(image: Image.Image | Path) -> str:
    """A picture as a `data:` URI of its PNG; the same pixels give the same text."""
    if isinstance(image, Path):
        with Image.open(image) as opened:
            return data_uri(opened.convert("RGB"))
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
