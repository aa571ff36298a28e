"""Pictures as text, for messages that travel as JSON."""

import base64
import io
from pathlib import Path

from PIL import Image

from vlsurgery.probes.prompts.picture_files import rgb


def data_uri(image: Image.Image | Path) -> str:
    """A picture as a `data:` URI of its PNG, that of a file as models see it (`rgb`); the same pixels give the same
    text. Raises SurgeryError as `rgb` does."""
    if isinstance(image, Path):
        return data_uri(rgb(image))
    stream = io.BytesIO()
    image.save(stream, format="PNG", exif=None, icc_profile=None)  # nothing of who took it, where and with what
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
