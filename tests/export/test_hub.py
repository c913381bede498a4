import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
import torch
import yaml
from hub_server import StandInHub, serve_hub
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import synth2_lightning.transformers  # noqa: F401 - registers the classes
from synth2_lightning import Captioner, MuseGenerator, VisionLanguageModule, load
from synth2_lightning.cli import main
from synth2_lightning.demo.command import find_folder
from synth2_lightning.export.hub import locate_export
from synth2_lightning.export.push import push_folder
from synth2_lightning.generators.muse import save_generator
from synth2_lightning.io.locations import hub_from_cache, resolve
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.shards.caption_set import CaptionSetWriter, finish_caption_set
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.caption_files import read_caption_rows
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, TinyTextEncoder
from synth2_lightning.types import (
    ChatMessage,
    Completion,
    PromptBatch,
    SampleInfo,
    TokenizedImages,
    VQTokens,
    WrittenCaptions,
)

TOKEN = "hf_stand_in"


@pytest.fixture
def set_offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that sets what HF_HUB_OFFLINE sets at the start of a process."""
    return lambda value: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_offline: Callable[[bool], None]) -> Iterator[StandInHub]:
    """Return a stand-in for the Hub that the client uses, with an empty cache and a login."""
    with serve_hub(TOKEN) as server:
        # What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_DISABLE_XET set at the start of a process.
        settings = {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        # transformers keeps the client of its first use; one with the public address would retry for minutes.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        set_offline(False)
        yield server


def tiny_captioner(seed: int = 0) -> Captioner:
    torch.manual_seed(seed)
    return Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()), "cpu")


GRAY = Image.new("RGB", (12, 9), (90, 90, 90))


def same_weights(one: Captioner, other: Captioner) -> bool:
    before, after = one.module.state_dict(), other.module.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_captioner_is_pushed_and_loaded_by_name_revision_and_without_a_network(
    hub: StandInHub, set_offline: Callable[[bool], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tiny_captioner(0), tiny_captioner(1)
    url = first.push_to_hub("me/captioner", license="mit")
    commit = url.rpartition("/")[2]
    second.push_to_hub("me/captioner")
    second.push_to_hub("me/captioner", branch="next")
    card = hub.files("model", "me/captioner", commit)["README.md"].decode()
    assert "license: mit" in card
    assert "trained with synth2-lightning, an" in card  # the number of steps is unknown
    hub.repositories["model", "me/captioner"].commits[hub.repositories["model", "me/captioner"].branches["main"]][
        "modeling.py"
    ] = b"raise SystemExit('code of a repository was run')"

    assert same_weights(load("me/captioner", "cpu"), second)
    assert same_weights(load("me/captioner@next", "cpu"), second)
    assert same_weights(load(f"me/captioner@{commit}", "cpu"), first)
    assert sorted(path.name for path in locate_export("me/captioner").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert find_folder("me/captioner") is None  # of the demo
    GRAY.save(tmp_path / "gray.png")
    expected = first.caption([GRAY])[0]
    set_offline(True)
    main(["caption", f"me/captioner@{commit}", str(tmp_path / "gray.png"), "--device", "cpu"])
    assert expected in capsys.readouterr().out
    with pytest.raises(OSError, match=r"'me/other' is not available on the Hub.*network"):
        load("me/other")


def test_a_missing_folder_of_a_run_is_named_by_its_full_path(
    set_offline: Callable[[bool], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    set_offline(True)
    with pytest.raises(SystemExit):
        main(["caption", "runs/version_0", str(tmp_path)])
    error = capsys.readouterr().err
    assert f"it is not at {Path('runs/version_0').absolute()}: start the command" in error
    assert ".." not in error


def test_auto_classes_of_transformers_load_a_captioner_by_name(
    hub: StandInHub, set_offline: Callable[[bool], None], export_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(export_tiny(), tmp_path / "captioner")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "logits.onnx").write_bytes(b"a graph")
    commit = push_folder(folder, "me/captioner").rpartition("/")[2]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(hub.files("model", "me/captioner")) == files
    expected = load(folder, "cpu").caption([GRAY])
    for is_offline in (False, True):
        set_offline(is_offline)
        for name, revision in (("me/captioner", None), ("me/captioner", commit)):
            model = AutoModelForImageTextToText.from_pretrained(name, revision=revision)
            processor = AutoProcessor.from_pretrained(name, revision=revision)
            ids = model.generate(**processor(images=[GRAY]))
            assert [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)] == expected


def test_a_model_of_transformers_is_pushed_with_its_card(hub: StandInHub, export_tiny: Callable[..., Path]) -> None:
    folder = export_tiny()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.push_to_hub("me/captioner", license="mit", private=True)
    files = hub.files("model", "me/captioner")
    assert set(files) == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert same_weights(load("me/captioner", "cpu"), load(folder, "cpu"))
    assert b"license: mit" in files["README.md"]
    assert hub.repositories["model", "me/captioner"].is_private


def test_a_repository_that_names_a_foreign_class_is_refused(hub: StandInHub) -> None:
    tiny_captioner().push_to_hub("me/captioner")
    files = hub.files("model", "me/captioner")
    config = json.loads(files["config.json"])
    config["model"]["init_args"]["decoder"]["class_path"] = "antigravity.Decoder"
    files["config.json"] = json.dumps(config).encode()
    with pytest.raises(ValueError, match=r"'antigravity\.Decoder'.*Nothing was imported"):
        load("me/captioner")


def test_a_private_captioner_needs_a_login(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_captioner().push_to_hub("me/secret", private=True)
    assert load("me/secret", "cpu").caption([GRAY])
    assert hub.repositories["model", "me/secret"].is_private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match=r"'me/mine'.*hf auth login"):
        tiny_captioner().push_to_hub("me/mine")
    with pytest.raises(OSError, match=r"'me/secret' at 'v1'.*login"):
        load("me/secret@v1")


def test_a_generator_is_pushed_and_loaded(hub: StandInHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer, text_encoder = TinyImageTokenizer(), TinyTextEncoder()
    network = MaskGit(6, 16, 1, (2, 2), text_dim=8, width=16, depth=1, num_heads=2)
    save_generator(tmp_path / "generator", network, text_encoder, tokenizer.codebook, "---\n{}\n---\n# Generator")
    main(["push", str(tmp_path / "generator"), "me/generator", "--private"])
    assert f"{hub.address}/me/generator/commit/" in capsys.readouterr().out
    assert hub.files("model", "me/generator")["README.md"].endswith(b"# Generator")
    local, remote = (
        MuseGenerator(location, TinyImageTokenizer(), TinyTextEncoder(), MaskGitSampling(num_steps=2))
        for location in (str(tmp_path / "generator"), "hf://me/generator@main")
    )
    for generator in (local, remote):
        generator.load()
    assert remote.provenance() == local.provenance()
    assert torch.equal(remote.generate(["a field"], [3]).ids, local.generate(["a field"], [3]).ids)


def write_caption_set(folder: Path) -> None:
    prompts = ((ChatMessage("user", "dog"),), (ChatMessage("user", "cat"),))
    samples = (SampleInfo("dog-0", "pets", "dog", 1), SampleInfo("cat-0", "pets", "cat", 2))
    answers = (Completion("A dog runs.", "stop", 80, 5), Completion("<think> A cat", "length", 80, 5))
    writer = CaptionSetWriter(folder)
    writer.append(WrittenCaptions(PromptBatch(prompts, samples, ("class@1",) * 2), answers, "smollm2"))
    writer.close()
    finish_caption_set(
        folder,
        lambda records: (records[:1], [(records[1], "AnswerFilter", "no caption")]),
        lambda: [{"name": "AnswerFilter"}],
        provenance={"made_by": "test"},
    )


def read_rows(folder: Path, scratch: Path, *config: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = datasets.load_dataset(
        str(folder), *config, split="train", cache_dir=str(scratch / "arrow")
    ).to_list()
    return rows


def test_a_caption_set_is_read_by_datasets_and_pushed_without_the_answers(hub: StandInHub, tmp_path: Path) -> None:
    folder = tmp_path / "captions"
    write_caption_set(folder)
    assert [row["caption"] for row in read_rows(folder, tmp_path)] == ["A dog runs."]
    assert [row["reason"] for row in read_rows(folder, tmp_path, "rejected")] == ["no caption"]
    push_folder(folder, "me/captions")
    names = sorted(hub.files("dataset", "me/captions"))
    assert names == ["README.md", "captions.parquet", "manifest.json", "rejected.parquet"]
    fetched = resolve("hf://datasets/me/captions", "captions")
    assert read_caption_rows(fetched)["caption"].to_pylist() == ["A dog runs."]
    assert [row["caption"] for row in read_rows(fetched, tmp_path)] == ["A dog runs."]
    file = resolve("hf://datasets/me/captions@main/captions.parquet", "captions")
    assert read_caption_rows(file)["key"].to_pylist() == ["dog-0"]
    card = yaml.safe_load((fetched / "README.md").read_text().split("---\n")[1])
    assert [config["config_name"] for config in card["configs"]] == ["default", "rejected"]


def write_shards(folder: Path, is_evaluation: bool = False) -> None:
    tokens = VQTokens(torch.arange(8).view(2, 4, 1), "tiny-16:00000000")
    samples = (SampleInfo("7", "scenes"), SampleInfo("8", "scenes"))
    writer = ShardWriter(folder)
    writer.append(TokenizedImages(samples, (("a circle",), ("a square", "a box")), tokens, codebook_size=16))
    writer.close()
    finish(folder, provenance={"made_by": "test"}, is_evaluation=is_evaluation)


def test_shards_are_read_by_datasets_and_pushed(
    hub: StandInHub, set_offline: Callable[[bool], None], tmp_path: Path
) -> None:
    write_shards(tmp_path / "shards")
    (tmp_path / "shards" / ".part-00000.lock").touch()
    rows = read_rows(tmp_path / "shards", tmp_path)
    assert [(row["key"], row["tokens"]) for row in rows] == [("7", [0, 1, 2, 3]), ("8", [4, 5, 6, 7])]
    stale = tmp_path / "shards" / "part-00001-00000.parquet"
    stale.write_bytes(b"of an earlier upload")
    push_folder(tmp_path / "shards", "me/tokens")
    stale.unlink()
    push_folder(tmp_path / "shards", "me/tokens")
    assert sorted(hub.files("dataset", "me/tokens")) == ["README.md", "manifest.json", "part-00000-00000.parquet"]
    reader = ShardReader("hf://datasets/me/tokens@main")
    reader.load()
    assert reader.read_captions([1, 0]) == [("a square", "a box"), ("a circle",)]
    set_offline(True)
    again = ShardReader("hf://datasets/me/tokens")
    again.load()
    assert again.fingerprint() == reader.fingerprint()


def test_the_card_of_evaluation_shards_names_another_split(tmp_path: Path) -> None:
    write_shards(tmp_path, is_evaluation=True)
    card = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["configs"][0]["data_files"][0]["split"] == "test"
    assert "must not be trained on" in card


def test_an_untrusted_checkpoint_downloads_nothing(hub: StandInHub, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    push_folder(tmp_path / "shards", "me/tokens")
    hub.requests.clear()
    with hub_from_cache(), pytest.raises(OSError, match=r"'me/tokens' is not in the local cache"):
        resolve("hf://datasets/me/tokens", "shards")
    assert hub.requests == []
    with hub_from_cache(["me/tokens"]):
        assert (resolve("hf://datasets/me/tokens", "shards") / "manifest.json").is_file()


def test_what_exists_here_is_not_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert locate_export("owner/name") == Path("owner/name")
    for missing in ("./other", "captioner", "owner/other"):
        with pytest.raises(FileNotFoundError, match=rf"captioner.*'{missing}'"):
            locate_export(missing)


def test_offline_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"'nobody/nothing'.*network.*path"):
        locate_export("nobody/nothing")
    write_shards(tmp_path)
    with pytest.raises(OSError, match=r"upload.*'owner/name'"):
        push_folder(tmp_path, "owner/name")


def test_a_wrong_name_address_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'name'.*OWNER/NAME"):
        tiny_captioner().push_to_hub("name")
    for address in ("hf://name", "hf://datasets/me", "hf://me/captioner/../../secret", "hf://me/captioner//etc"):
        with pytest.raises(ValueError, match=r"hf://OWNER/NAME"):
            resolve(address, "model")
    with pytest.raises(ValueError, match=r"holds no exported captioner"):
        push_folder(tmp_path, "me/captioner")
