from pathlib import Path

import pytest
import torch

from synth2_lightning.io.safetensors import read_safetensors, write_safetensors


def test_every_kind_of_tensor_comes_back_bit_by_bit(tmp_path: Path) -> None:
    weight = torch.randn(4, 6)
    weights = {
        "whole": weight,
        "turned": weight.T,
        "row": weight[1],
        "half": weight.bfloat16(),
        "count": torch.tensor(7),
        "nan": torch.tensor([float("nan"), -0.0]),
        "none": torch.zeros(0, 3),
        "nothing": torch.zeros(0),
    }
    write_safetensors(weights, tmp_path / "model.safetensors")
    loaded = read_safetensors(tmp_path / "model.safetensors")
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert loaded[name].dtype == tensor.dtype
        assert (
            loaded[name].numpy(force=True).tobytes() == tensor.numpy(force=True).tobytes() if name != "half" else True
        )
    assert torch.equal(loaded["half"].view(torch.int16), weights["half"].view(torch.int16))


def test_tied_tensors_are_written_once_and_come_back_tied(tmp_path: Path) -> None:
    words = torch.randn(100, 8)
    write_safetensors({"words": words, "head": words}, tmp_path / "tied.safetensors")
    write_safetensors({"words": words}, tmp_path / "one.safetensors")
    assert (tmp_path / "tied.safetensors").stat().st_size < (tmp_path / "one.safetensors").stat().st_size + 200
    loaded = read_safetensors(tmp_path / "tied.safetensors")
    assert loaded["head"].data_ptr() == loaded["words"].data_ptr()


def test_a_view_as_another_type_keeps_it(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    write_safetensors({"a": tensor, "b": tensor.view(torch.int32)}, tmp_path / "model.safetensors")
    read = read_safetensors(tmp_path / "model.safetensors")
    assert (read["a"].dtype, read["b"].dtype) == (torch.float32, torch.int32)


def test_what_is_no_tensor_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'extra'.*\bdict\b.*tensors"):
        write_safetensors({"extra": {}}, tmp_path / "model.safetensors")
    write_safetensors({"a": torch.ones(9)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-3])
    with pytest.raises(ValueError, match=r"model\.safetensors.*damaged"):
        read_safetensors(tmp_path / "model.safetensors")
