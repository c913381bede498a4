from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader

from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
from synth2_lightning.training.compilation import compile_blocks
from synth2_lightning.types import GenerationSettings, ImageTextBatch

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}  # fmt: skip
reads_a_context = pytest.mark.skipif(
    TorchVersion(torch.__version__) < "2.8", reason="torch 2.7 breaks graphs at ContextVar.get"
)
CAPTIONS = ("a circle", "a red circle", "a big red circle and a small blue square", "a square above a circle")


def make_module(decoder: type[CausalDecoder], config: dict[str, Any], **settings: Any) -> VisionLanguageModule:
    torch.manual_seed(0)
    source = NewLanguageModel(config, "package://synth2_lightning/scenes/vocabulary")
    every: dict[str, Any] = {} if decoder is PrefixDecoder else {"cross_attn_every_n_layers": 1, "num_heads": 2}
    resampler = PerceiverResampler(num_latents=3, depth=3, num_heads=2, head_dim=8, **settings)
    generation = GenerationSettings(max_new_tokens=3)
    return VisionLanguageModule(
        TinyImageTokenizer(), resampler, decoder(source, **every, **settings), generation, compile_network=True
    )


def make_batches() -> list[ImageTextBatch]:
    """Batches whose captions have different lengths."""
    batch = tiny_batch(2)
    return [ImageTextBatch(batch.image, (caption,) * 2, batch.samples) for caption in CAPTIONS]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize(
    ("decoder", "config", "checkpoint_activations", "num_graphs"),
    [
        # The resampler's first layer, whose latents are expanded, and the others; the blocks of the language model for
        # the first length of captions, and for all others.
        (PrefixDecoder, LLAMA, False, 4),
        (PrefixDecoder, GPT2, False, 4),
        # The cross-attention is compiled beside the blocks, also for the first length and for all others.
        pytest.param(CrossAttentionDecoder, LLAMA, False, 6, marks=[reads_a_context, pytest.mark.slow]),
        # Once more to recompute.
        pytest.param(CrossAttentionDecoder, LLAMA, True, 7, marks=[reads_a_context, pytest.mark.slow]),
    ],
)
def test_compiled_blocks_share_graphs_and_have_the_same_losses(
    decoder: type[CausalDecoder],
    config: dict[str, Any],
    checkpoint_activations: bool,
    num_graphs: int,
    graph_counts: dict[str, int],
) -> None:
    results = []
    for is_compiled in (False, True):
        module = make_module(decoder, config, checkpoint_activations=checkpoint_activations)
        module.configure_model()
        names = list(module.state_dict())
        if is_compiled:
            compile_blocks(module.resampler)
            compile_blocks(module.decoder)
        losses = [module.compute_loss(module.encode_images(batch.image), batch).mean() for batch in make_batches()]
        torch.autograd.backward(torch.stack(losses).sum())
        assert list(module.state_dict()) == names
        results.append([*losses, *(weight.grad for weight in module.parameters() if weight.grad is not None)])
    assert graph_counts["unique_graphs"] == num_graphs
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .* does not have many workers", "ignore:The .grad attribute of a Tensor")
def test_the_switch_compiles_training_and_not_generation(tmp_path: Path, graph_counts: dict[str, int]) -> None:
    module = make_module(PrefixDecoder, LLAMA)
    loader: Any = partial(DataLoader, batch_size=None)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader(make_batches()), loader([tiny_batch(2)]))
    assert graph_counts["unique_graphs"] == 4
    module.caption(tiny_batch(2).image)
    assert graph_counts["unique_graphs"] == 4
    path = next(tmp_path.rglob("*.ckpt"))
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert not [name for name in saved if "_orig_mod" in name]
    assert set(saved) == set(make_module(PrefixDecoder, LLAMA).state_dict()) | {
        name for name in saved if name.startswith("decoder.")
    }
