"""synth2-lightning: vision-language models trained on synthetic captions and image tokens (Synth²).

The public names are imported at their first use (PEP 562), so that importing the package is fast.
"""

from importlib import import_module

# Not imported from typing: under `python -m`, a typing.py in the working directory would be imported instead.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from synth2_lightning.callbacks.cider import CiderCallback as CiderCallback
    from synth2_lightning.datamodules.fraction import ConstantFraction as ConstantFraction
    from synth2_lightning.datamodules.mixed import MixedDataModule as MixedDataModule
    from synth2_lightning.datamodules.real import RealDataModule as RealDataModule
    from synth2_lightning.datamodules.synthetic import SyntheticDataModule as SyntheticDataModule
    from synth2_lightning.datamodules.tokenized import TokenizedDataModule as TokenizedDataModule
    from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder as CrossAttentionDecoder
    from synth2_lightning.decoders.language_model import NewLanguageModel as NewLanguageModel
    from synth2_lightning.decoders.language_model import PretrainedLanguageModel as PretrainedLanguageModel
    from synth2_lightning.decoders.prefix import PrefixDecoder as PrefixDecoder
    from synth2_lightning.encoders.open_clip import OpenClipEncoder as OpenClipEncoder
    from synth2_lightning.encoders.quantized import QuantizedEncoder as QuantizedEncoder
    from synth2_lightning.encoders.timm import TimmEncoder as TimmEncoder
    from synth2_lightning.encoders.vqgan import VQGANTokenizer as VQGANTokenizer
    from synth2_lightning.export.captioner import Captioner as Captioner
    from synth2_lightning.export.captioner import load as load
    from synth2_lightning.generators.muse import MuseGenerator as MuseGenerator
    from synth2_lightning.metrics.corpus_metrics import Cider as Cider
    from synth2_lightning.modules.captioning import VisionLanguageModule as VisionLanguageModule
    from synth2_lightning.modules.muon import Muon as Muon
    from synth2_lightning.modules.muse import MuseModule as MuseModule
    from synth2_lightning.nn.neighborhood import NeighborhoodResampler as NeighborhoodResampler
    from synth2_lightning.nn.perceiver import PerceiverResampler as PerceiverResampler
    from synth2_lightning.scenes.source import ScenesSource as ScenesSource
    from synth2_lightning.sources.coco import CocoSource as CocoSource
    from synth2_lightning.sources.folder import FolderSource as FolderSource
    from synth2_lightning.sources.karpathy import KarpathySource as KarpathySource
    from synth2_lightning.types.captions import GenerationSettings as GenerationSettings

__version__ = "0.1.0"

_LAZY_IMPORTS = {
    "Captioner": "export.captioner.Captioner",
    "Cider": "metrics.corpus_metrics.Cider",
    "CiderCallback": "callbacks.cider.CiderCallback",
    "CocoSource": "sources.coco.CocoSource",
    "ConstantFraction": "datamodules.fraction.ConstantFraction",
    "CrossAttentionDecoder": "decoders.cross_attention.CrossAttentionDecoder",
    "FolderSource": "sources.folder.FolderSource",
    "GenerationSettings": "types.captions.GenerationSettings",
    "KarpathySource": "sources.karpathy.KarpathySource",
    "MixedDataModule": "datamodules.mixed.MixedDataModule",
    "Muon": "modules.muon.Muon",
    "MuseGenerator": "generators.muse.MuseGenerator",
    "MuseModule": "modules.muse.MuseModule",
    "NeighborhoodResampler": "nn.neighborhood.NeighborhoodResampler",
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
    "load": "export.captioner.load",
}
"""Where each public name is defined, below this package."""

__all__ = list(_LAZY_IMPORTS)


def __getattr__(name: str) -> "Any":
    """Return a public name, imported on its first use (PEP 562)."""
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY_IMPORTS[name].rpartition(".")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
