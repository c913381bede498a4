"""Run the captioning tasks of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval) with a captioner.

    pip install lmms-eval
    python examples/lmms_eval_captioner.py --model synth2 --model_args pretrained=my-captioner,num_beams=3 \
        --tasks coco2014_cap_val --batch_size 16

The options are those of ``python -m lmms_eval``; ``pretrained`` is a run, a checkpoint or an export. Prompt and
decoding are the captioner's own: the instructions and the ``generation_kwargs`` of a task are for chat models, and are
ignored. Written for lmms-eval 0.7. One process; tasks with one image per question and generated answers.
"""

from typing import Any

from lmms_eval.api.model import lmms
from PIL import Image

import synth2_lightning
from synth2_lightning.export.image_inputs import read_image


class Synth2Captioner(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A captioner with the interface of lmms-eval.

    Args:
        pretrained: A run, a checkpoint or an export.
        batch_size: Number of images per batch.
        device: As for :func:`synth2_lightning.load`.
        num_beams: As for :func:`synth2_lightning.load`.
        **kwargs: ``max_batch_size``, which lmms-eval adds.

    Raises:
        ValueError: If another argument is given.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 16,
        device: str | None = None,
        num_beams: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if unknown := sorted(kwargs.keys() - {"max_batch_size"}):
            raise ValueError(f"model_args has {', '.join(unknown)}; expected pretrained and num_beams.")
        self.batch_size = int(batch_size)
        self.captioner = synth2_lightning.load(pretrained, device, num_beams)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the caption of each request's image.

        Raises:
            OSError: If an image cannot be read.
            ValueError: If a request has no image, or several.
        """
        captions = []
        for batch in self.captioner.stream(requests, self._read, self.batch_size):
            for request, (caption, error) in batch:
                if error is not None:
                    raise error
                self.cache_hook.add_partial("generate_until", request.args[:2], caption)
                captions.append(caption)
        return captions

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Raise: captioners are scored by the captions that they generate."""
        raise NotImplementedError(_unsupported("loglikelihood"))

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Raise: captioners have no conversations."""
        raise NotImplementedError(_unsupported("generate_until_multi_round"))

    def _read(self, request: Any) -> Image.Image:
        _, _, doc_to_visual, doc_id, task, split = request.args
        images = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(images) != 1:
            raise ValueError(
                f"The request {doc_id} of {task} has {len(images)} images; expected one. Choose another task."
            )
        return read_image(images[0], f"{doc_id} of {task}", self.captioner.image_size)


def _unsupported(output_type: str) -> str:
    return f"A captioner has no {output_type}; expected a task with output_type generate_until."


if __name__ == "__main__":
    from lmms_eval.__main__ import cli_evaluate
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.models.registry_v2 import ModelManifest

    MODEL_REGISTRY_V2.register_manifest(ModelManifest("synth2", simple_class_path="__main__.Synth2Captioner"))
    cli_evaluate()
