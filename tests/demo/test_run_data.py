from pathlib import Path

import pytest
import yaml

from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.demo.run_data import build_data_component
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.scenes.source import ScenesSource


def test_components_of_the_data_are_built_by_the_run_file(run: Path) -> None:
    shards = build_data_component(run, SyntheticDataModule)
    assert shards is not None
    assert (shards.reader.limit, shards.keep_fraction) == (300, 0.5)
    source = build_data_component(run, ImageTextSource, ".val")
    assert isinstance(source, ScenesSource)
    assert (source.split, len(source)) == ("val", 8)


def test_what_a_run_has_not_is_none(tmp_path: Path) -> None:
    assert build_data_component(None, SyntheticDataModule) is None
    data = {"class_path": "gone.Data", "init_args": {"val": {"class_path": "gone.too.Source"}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    assert build_data_component(tmp_path, SyntheticDataModule) is None
    assert build_data_component(tmp_path, ImageTextSource, ".train") is None
    with pytest.raises(ValueError, match=r"gone\.too\.Source.*--trust gone"):
        build_data_component(tmp_path, ImageTextSource, ".val")
