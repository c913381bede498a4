"""Exported captioners as models of transformers; :mod:`synth2_lightning.transformers` registers them."""

from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.tokens import PromptTokens
from synth2_lightning.export.exported import load_exported, save_captioner
from synth2_lightning.export.folder import MODEL_TYPE
from synth2_lightning.export.processing import find_token_decoder
from synth2_lightning.export.push import push_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.types import GenerationSettings, Pixels

_SETTINGS = {field.name for field in fields(GenerationSettings)}
_OF_AUTO_CLASSES = {"adapter_kwargs", "trust_remote_code", "_from_auto", "_commit_hash"}
"""Arguments that the auto classes add and that have no effect here: no code is remote."""


class Synth2Config(PretrainedConfig):  # type: ignore[misc]  # transformers has no types
    """The ``config.json`` of an export; its keys are attributes. ``model`` describes the components."""

    model_type = MODEL_TYPE


class Synth2ForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A captioner with the interface of transformers; captions equal those of :class:`VisionLanguageModule`.

    Args:
        config: Content of its ``config.json``.
        module: The captioner, with its weights.

    Raises:
        ValueError: If a subclass of the module changes its texts, or its decoder is not a ``CausalDecoder``.
    """

    config_class = Synth2Config
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")

    def __init__(self, config: Synth2Config, module: VisionLanguageModule) -> None:
        decoder = find_token_decoder(module)
        if decoder is None:
            raise ValueError(
                f"{type(module).__name__} with a {type(module.decoder).__name__} cannot be a model of transformers; "
                "expected the generate() of VisionLanguageModule and a PrefixDecoder or CrossAttentionDecoder, whose "
                "texts are token ids. Use synth2_lightning.load()."
            )
        super().__init__(config)
        self.module = module
        self._fixed = {
            "eos_token_id": decoder.caption_tokenizer.eos_id,
            "pad_token_id": decoder.caption_tokenizer.pad_id,
            "return_dict_in_generate": False,
            "use_cache": True,
        }
        self.generation_config = GenerationConfig(**asdict(module.generation), **self._fixed)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        config: Synth2Config | None = None,
        revision: str | None = None,
        trust: Collection[str] = (),
        from_hub: Collection[str] = (),
        **kwargs: Any,
    ) -> "Synth2ForConditionalGeneration":
        """Load an export by :func:`~synth2_lightning.export.exported.load_exported`, to the CPU.

        Args:
            pretrained_model_name_or_path: The folder, or ``OWNER/NAME`` on the Hub.
            config: Content of its ``config.json``, if it was read before.
            revision: Branch, tag or commit on the Hub.
            trust: See :func:`~synth2_lightning.export.exported.load_exported`.
            from_hub: See :func:`~synth2_lightning.export.exported.load_exported`.
            **kwargs: Arguments that the auto classes add, and options that are off.

        Raises:
            FileNotFoundError: If the export or a file of it is missing.
            OSError: If the Hub cannot be reached.
            ValueError: If the export is damaged, names an untrusted package, or another argument is given.
        """
        given = {"dtype": getattr(config, "dtype", None)} | kwargs  # AutoModel of older versions moves it to the config
        refused = {
            name: value
            for name, value in given.items()
            if not (name in _OF_AUTO_CLASSES or value is None or value is False or (name, value) == ("dtype", "auto"))
        }
        if refused:
            raise ValueError(
                f"from_pretrained() of a captioner got {', '.join(f'{name}={refused[name]}' for name in refused)}; "
                "expected neither a type nor a device nor other options: frozen components and codebooks depend on the "
                "types at export. Call .to(device) afterwards, and run the model in torch.autocast for speed on a GPU."
            )
        location = f"{pretrained_model_name_or_path}@{revision}" if revision else pretrained_model_name_or_path
        module = load_exported(location, trust, from_hub)
        config = config or Synth2Config.from_pretrained(pretrained_model_name_or_path, revision=revision)
        return cls(config, module)

    def save_pretrained(self, save_directory: str | Path, license: str | None = None) -> None:
        """Write the captioner to a folder by :func:`~synth2_lightning.export.exported.save_captioner`."""
        save_captioner(self.module, save_directory, license)

    def push_to_hub(
        self, repo_id: str, license: str | None = None, private: bool = False, revision: str | None = None
    ) -> str:
        """Upload the captioner by :func:`~synth2_lightning.export.push.push_captioner`, to the branch ``revision``."""
        return push_captioner(self.module, repo_id, license, private=private, branch=revision)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput:
        """Return the logits of the token after each given one, ``(batch, length, vocabulary)``, and the loss.

        Args:
            pixel_values: Pixels of :class:`~synth2_lightning.export.processing.Synth2ImageProcessor`, of shape
                (batch, 3, height, width) and type uint8.
            input_ids: Prompts and texts, of shape (batch, length), padded on the right.
            attention_mask: Not used: padding is on the right.
            labels: The ids, with -100 where there is no target. The loss is the mean over targets.

        Raises:
            ValueError: If a row is padded on the left, or too long for the language model.
        """
        if attention_mask is not None and not attention_mask[:, 0].all():
            raise ValueError(
                "forward() got prompts that are padded on the left; expected padding on the right. Pad each row after "
                "its text, or call generate()."
            )
        logits = self._decoder.logits(self.module.encode_images(Pixels(pixel_values)), input_ids)
        loss = None if labels is None else cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the token ids of captions, ``(batch, new length)``, after the ids of the prompts if these are given.

        Args:
            pixel_values: As for :meth:`forward`.
            input_ids: Prompts, of shape (batch, length); by default the captioner's own.
            attention_mask: 0 at padding.
            generation_config: Settings that replace those of the run. Those that are not in
                :class:`~synth2_lightning.types.GenerationSettings` have no effect: pipelines fill in the defaults.
            **kwargs: Settings as keywords, which have precedence.

        Raises:
            ValueError: If a setting is not supported, or the texts may get too long for the language model.
        """
        settings = self._read_settings(generation_config, kwargs)
        visual = self.module.encode_images(Pixels(pixel_values))
        if input_ids is None:
            tokenizer = self._decoder.caption_tokenizer
            prompts = tokenizer.encode_prompts(tokenizer.fill_prompts(None, len(visual)))
            return self._decoder.generate_ids(visual, settings, prompts)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids = self._decoder.generate_ids(visual, settings, PromptTokens(input_ids, mask.bool()))
        return torch.cat([input_ids, ids], dim=1)

    @property
    def _decoder(self) -> CausalDecoder:
        return cast(CausalDecoder, self.module.decoder)

    def _read_settings(self, config: GenerationConfig | None, others: dict[str, Any]) -> GenerationSettings:
        refused = {
            name: value
            for name, value in others.items()
            if name not in _SETTINGS and value is not None and value != self._fixed.get(name)
        }
        if refused:
            raise ValueError(
                f"generate() of a captioner got {', '.join(f'{name}={refused[name]}' for name in refused)}; expected "
                f"only settings of its decoding: {', '.join(sorted(_SETTINGS))}."
            )
        values: dict[str, Any] = {}
        for given in (self.generation_config.to_dict(), {} if config is None else config.to_dict(), others):
            values |= {name: given[name] for name in _SETTINGS if given.get(name) is not None}
        return GenerationSettings(**values)
