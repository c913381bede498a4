"""Decode a picture, whatever its file holds, or say by name why it cannot be decoded."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps


def decode_picture(file: Path | BytesIO, name: str) -> Image.Image:
    """Decode a picture as its camera meant it: turned upright by its EXIF tag, in RGB.

    Args:
        file: A path, or the bytes of a picture.
        name: What to call the picture in an error.

    Raises:
        OSError: If it is missing, truncated, no picture, or so large that it looks like an attack.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("L", (4, 3)).save(file, "PNG")
        >>> decode_picture(file, "grey.png").mode
        'RGB'
    """
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    # Pillow reports damage by whatever its decoders stumble over: a broken PNG header, for one, is a SyntaxError.
    except Exception as error:
        raise OSError(f"The picture {name} cannot be read: {type(error).__name__}: {error}") from error
