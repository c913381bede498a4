"""synth2-lightning: vision-language models trained on synthetic captions and image tokens (Synth²).

The public names below are imported when they are first used, so that importing the package takes no time.
"""

from importlib import import_module

TYPE_CHECKING = False  # typing is not imported: `python -m` would search the current folder for it first
if TYPE_CHECKING:
    from typing import Any

    from synth2_lightning.callbacks.cider import CiderCallback
    from synth2_lightning.datamodules.mixed import MixedDataModule
    from synth2_lightning.datamodules.real import RealDataModule
    from synth2_lightning.datamodules.synthetic import SyntheticDataModule
    from synth2_lightning.datamodules.tokenized import TokenizedDataModule
    from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder
    from synth2_lightning.decoders.language_model import NewLanguageModel, PretrainedLanguageModel
    from synth2_lightning.decoders.prefix import PrefixDecoder
    from synth2_lightning.encoders.open_clip import OpenClipEncoder
    from synth2_lightning.encoders.quantized import QuantizedEncoder
    from synth2_lightning.encoders.timm import TimmEncoder
    from synth2_lightning.encoders.vqgan import VQGANTokenizer
    from synth2_lightning.export.captioner import Captioner
    from synth2_lightning.export.captioner import load_captioner as load
    from synth2_lightning.generators.muse import MuseGenerator
    from synth2_lightning.metrics.cider import Cider
    from synth2_lightning.modules.captioning import VisionLanguageModule
    from synth2_lightning.modules.muse import MuseModule
    from synth2_lightning.nn.perceiver import PerceiverResampler
    from synth2_lightning.scenes.source import ScenesSource
    from synth2_lightning.sources.coco import CocoSource
    from synth2_lightning.sources.folder import FolderSource
    from synth2_lightning.sources.karpathy import KarpathySource

__version__ = "0.1.0"

__all__ = [
    "Captioner",
    "Cider",
    "CiderCallback",
    "CocoSource",
    "CrossAttentionDecoder",
    "FolderSource",
    "KarpathySource",
    "MixedDataModule",
    "MuseGenerator",
    "MuseModule",
    "NewLanguageModel",
    "OpenClipEncoder",
    "PerceiverResampler",
    "PrefixDecoder",
    "PretrainedLanguageModel",
    "QuantizedEncoder",
    "RealDataModule",
    "ScenesSource",
    "SyntheticDataModule",
    "TimmEncoder",
    "TokenizedDataModule",
    "VQGANTokenizer",
    "VisionLanguageModule",
    "load",
]

_PLACES = {
    "Captioner": "export.captioner.Captioner",
    "Cider": "metrics.cider.Cider",
    "CiderCallback": "callbacks.cider.CiderCallback",
    "CocoSource": "sources.coco.CocoSource",
    "CrossAttentionDecoder": "decoders.cross_attention.CrossAttentionDecoder",
    "FolderSource": "sources.folder.FolderSource",
    "KarpathySource": "sources.karpathy.KarpathySource",
    "MixedDataModule": "datamodules.mixed.MixedDataModule",
    "MuseGenerator": "generators.muse.MuseGenerator",
    "MuseModule": "modules.muse.MuseModule",
    "NewLanguageModel": "decoders.language_model.NewLanguageModel",
    "OpenClipEncoder": "encoders.open_clip.OpenClipEncoder",
    "PerceiverResampler": "nn.perceiver.PerceiverResampler",
    "PrefixDecoder": "decoders.prefix.PrefixDecoder",
    "PretrainedLanguageModel": "decoders.language_model.PretrainedLanguageModel",
    "QuantizedEncoder": "encoders.quantized.QuantizedEncoder",
    "RealDataModule": "datamodules.real.RealDataModule",
    "ScenesSource": "scenes.source.ScenesSource",
    "SyntheticDataModule": "datamodules.synthetic.SyntheticDataModule",
    "TimmEncoder": "encoders.timm.TimmEncoder",
    "TokenizedDataModule": "datamodules.tokenized.TokenizedDataModule",
    "VQGANTokenizer": "encoders.vqgan.VQGANTokenizer",
    "VisionLanguageModule": "modules.captioning.VisionLanguageModule",
    "load": "export.captioner.load_captioner",
}


def __getattr__(name: str) -> "Any":
    """Return a public name, imported on its first use (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].rpartition(".")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
