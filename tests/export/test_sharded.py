import pickle
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import AdamW
from torch.serialization import _get_layout

from synth2_lightning.cli import main
from synth2_lightning.export.captioner import load_module
from synth2_lightning.export.runs import find_run
from synth2_lightning.export.sharded import check_sharded, consolidate, is_sharded, read_sharded

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable")


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.fixture
def sharded(tmp_path: Path, layer: nn.Linear) -> Path:
    """Return a checkpoint as FSDP2 writes it with save_distributed_checkpoint: true, here from one process."""
    groups: list[dict[str, Any]] = [{"params": [layer.bias]}, {"params": [layer.weight]}]
    optimizer = AdamW(groups, lr=0.25)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    names = ["bias", "weight"]
    by_name = {
        "state": {names[number]: value for number, value in state["state"].items()},
        "param_groups": [group | {"params": [names[group["params"][0]]]} for group in state["param_groups"]],
    }
    folder = tmp_path / "last.ckpt"
    content: dict[str, Any] = {"state_dict": layer.state_dict(), "optimizer_0": by_name}
    save(content, checkpoint_id=folder, no_dist=True)
    torch.save({"global_step": 1, "loops": {}}, folder / "meta.pt")
    return folder


def same(found: dict[str, Tensor], layer: nn.Linear) -> bool:
    expected = layer.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_weights_are_merged_bit_by_bit(sharded: Path, layer: nn.Linear, capsys: pytest.CaptureFixture[str]) -> None:
    file = sharded.parent / "model.safetensors"
    main(["consolidate", str(sharded), "--out", str(file)])
    assert same(load_file(file), layer)
    assert "2 trained tensors" in capsys.readouterr().out
    assert [path.name for path in sharded.parent.iterdir() if path.name.startswith(".")] == []


def test_a_process_can_resume_from_a_merged_checkpoint(sharded: Path, layer: nn.Linear) -> None:
    file = sharded.parent / "merged.ckpt"
    assert consolidate(sharded, file) == 2
    content = torch.load(file, weights_only=True)
    assert content["global_step"] == 1
    assert same(content["state_dict"], layer)
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 3))]
    groups: list[dict[str, Any]] = [{"params": [weight]} for weight in weights]
    other = AdamW(groups)
    other.load_state_dict(content["optimizer_states"][0])
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.25]
    shapes = [other.state[group["params"][0]]["exp_avg"].shape for group in other.param_groups]
    assert shapes == [(2,), (2, 3)]


def test_an_index_that_names_code_is_refused_and_not_run(sharded: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (sharded.parent / "was_run",)

    (sharded / ".metadata").write_bytes(pickle.dumps(Code()))
    with pytest.raises(ValueError, match=r"index.*pathlib.*\bcode\b"):
        read_sharded(sharded)
    assert not (sharded.parent / "was_run").exists()


_METADATA = b"ctorch.distributed.checkpoint.metadata\n"
_HOSTILE_STATE = b"N}X\x04\x00\x00\x00nameX\x04\x00\x00\x00evils\x86b."  # (None, {"name": "evil"}), BUILD
CHANGES = {  # each is pushed on the stack; then BUILD sets attributes of it
    "a class of paths": b"cpathlib\nPosixPath\n",
    "a class of torch": _METADATA + b"Metadata\n",
    "an enumeration": _METADATA + b"_MEM_FORMAT_ENCODING\n",
    "a member of an enumeration": _METADATA + b"_MEM_FORMAT_ENCODING\nK\x00\x85R",
    "a function": b"ctorch.serialization\n_get_layout\n",
    "a type": b"ctorch\nSize\n",
    "numbers' type": b"ctorch\nfloat32\n",
    "an object of another class": _METADATA + b"StorageMeta\n)R",
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_index_that_changes_what_it_names_is_refused(sharded: Path, what: str) -> None:
    (sharded / ".metadata").write_bytes(b"\x80\x02" + CHANGES[what] + _HOSTILE_STATE)
    before = {kind: dict(vars(kind)) for kind in (PosixPath, Metadata, StorageMeta, _MEM_FORMAT_ENCODING)}
    with pytest.raises(ValueError, match=r"last\.ckpt.*\bread\b"):
        check_sharded(sharded)
    assert {kind: dict(vars(kind)) for kind in before} == before
    assert not hasattr(_get_layout, "name")
    assert Path("/a/b").name == "b"


def test_an_index_that_leads_out_of_the_folder_is_refused(sharded: Path) -> None:
    index = (sharded / ".metadata").read_bytes()
    name = next(path.name for path in sharded.iterdir() if path.suffix == ".distcp")
    (sharded / ".metadata").write_bytes(index.replace(name.encode(), b"../" + name.encode()[3:]))
    with pytest.raises(ValueError, match=r"'\.\./.*folder"):
        read_sharded(sharded)


def test_a_damaged_or_incomplete_checkpoint_is_refused(sharded: Path) -> None:
    (part,) = sharded.glob("*.distcp")
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"last\.ckpt.*\bread\b.*[Ee]xpected"):
        consolidate(sharded, sharded.parent / "model.safetensors")
    part.unlink()
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt.*distcp.*[Ee]xpected"):
        consolidate(sharded, sharded.parent / "model.safetensors")
    assert not (sharded.parent / "model.safetensors").exists()


def test_existing_files_are_kept_and_suffixes_select_the_format(sharded: Path) -> None:
    there = sharded.parent / "model.safetensors"
    there.write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"model\.safetensors.*[Ee]xpected a new file"):
        consolidate(sharded, there)
    with pytest.raises(ValueError, match=r"'\.bin'.*\.safetensors.*\.ckpt"):
        consolidate(sharded, sharded.parent / "model.bin")
    with pytest.raises(FileNotFoundError, match="no sharded checkpoint"):
        consolidate(sharded.parent, sharded.parent / "new.ckpt")


def test_the_message_of_a_sharded_checkpoint_in_place_of_a_file_names_the_command(sharded: Path) -> None:
    assert is_sharded(sharded)
    for find in (load_module, find_run):
        with pytest.raises(IsADirectoryError, match=r"synth2 consolidate .*last\.ckpt .*last-merged"):
            find(sharded)
    folder = sharded.parent / "run" / "checkpoints"
    folder.mkdir(parents=True)
    sharded.rename(folder / "last.ckpt")
    for find in (load_module, find_run):
        with pytest.raises(IsADirectoryError, match="synth2 consolidate "):
            find(folder.parent)
