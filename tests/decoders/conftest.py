"""Tiny, randomly initialized language models and their vocabulary."""

from pathlib import Path
from typing import Any

import pytest
import torch

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.vocabulary import build_vocabulary

CAPTIONS = (
    "a red circle above a small blue square .",
    "two green triangles",
    "A man's big dog runs on the beach, in the sun.",
    "a circle",
)
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    },
    "opt": {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    # These architectures scale their embeddings, hidden states or logits.
    "gemma2": {
        "model_type": "gemma2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "final_logit_softcapping": 2.0,
        "max_position_embeddings": 64,
    },
    "granite": {
        "model_type": "granite",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "logits_scaling": 3.0,
        "max_position_embeddings": 64,
    },
}


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    build_vocabulary(CAPTIONS, min_count=1, out=folder)
    return folder


@pytest.fixture(params=sorted(CONFIGS))
def language_model(request: pytest.FixtureRequest, vocabulary: Path) -> NewLanguageModel:
    torch.manual_seed(0)
    return NewLanguageModel(CONFIGS[request.param], str(vocabulary))


@pytest.fixture
def gpt2(vocabulary: Path) -> NewLanguageModel:
    torch.manual_seed(0)
    return NewLanguageModel(CONFIGS["gpt2"], str(vocabulary))


@pytest.fixture
def llama(vocabulary: Path) -> NewLanguageModel:
    torch.manual_seed(0)
    return NewLanguageModel(CONFIGS["llama"], str(vocabulary))
