"""Indexes of sources in the cache."""

from collections.abc import Callable, Sequence
from pathlib import Path

from synth2_lightning import __version__
from synth2_lightning.io.index_files import Index, describe_files, open_index

_MIN_BYTES_TO_KEEP = 2**20  # smaller files are parsed within about 0.1 s, or 1 s if they are compressed


def keep_index(source: object, files: Sequence[Path], make: Callable[[], Index]) -> Index:
    """Return the index of a source from the cache if its files are large, else make it.

    Indexes of classes outside this package are not kept, because their code may change. Other classes identify them by
    the package's version, and by the values of their public attributes.

    Args:
        source: The source.
        files: Files that the index is made of.
        make: Returns the index.
    """
    class_ = type(source)
    is_ours = class_.__module__.startswith("synth2_lightning.")
    if not is_ours or sum(file.stat().st_size for file in files) < _MIN_BYTES_TO_KEEP:
        return make()
    settings = {name: value for name, value in sorted(vars(source).items()) if not name.startswith("_")}
    # An index has the paths of images, which change with the version of a remote folder.
    folders = [str(path.absolute()) for path in vars(source).get("_paths", ())]
    return open_index(f"{class_.__name__}({settings})", f"{__version__} {folders} {describe_files(*files)}", make)
