"""Registers exported captioners with transformers.

After ``import synth2_lightning.transformers``, the auto classes load the folders of ``synth2 export``:
``AutoModelForImageTextToText``, ``AutoProcessor``, ``AutoConfig`` and ``AutoImageProcessor``. This is a module of its
own because registration imports transformers and torch, which ``import synth2_lightning`` does not, and transformers
does not find classes of other packages that were not imported.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from synth2_lightning.export.folder import MODEL_TYPE
from synth2_lightning.export.pretrained import Synth2Config, Synth2ForConditionalGeneration
from synth2_lightning.export.processing import Synth2ImageProcessor, Synth2Processor

__all__ = ["Synth2Config", "Synth2ForConditionalGeneration", "Synth2ImageProcessor", "Synth2Processor"]

AutoConfig.register(MODEL_TYPE, Synth2Config)
AutoImageProcessor.register(
    Synth2Config, image_processor_classes=dict.fromkeys(("pil", "torchvision"), Synth2ImageProcessor)
)
AutoProcessor.register(Synth2Config, Synth2Processor)
AutoModelForImageTextToText.register(Synth2Config, Synth2ForConditionalGeneration)
