from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth2_lightning.shards.data_card import CARD, write_caption_card


@pytest.mark.parametrize("model", ["tiny", ""])
def test_the_card_of_captions_has_their_columns_and_author(tmp_path: Path, model: str) -> None:
    rows = {"caption": ["a dog", "a cat"]} | ({"model": [model] * 2} if model else {})
    pq.write_table(pa.table(rows), tmp_path / "captions.parquet")
    write_caption_card(tmp_path, {"default": "captions.parquet"}, {"num_kept": 2})
    card = (tmp_path / CARD).read_text()
    columns = [line.partition(":")[0] for line in card.splitlines() if line.startswith("* ")]
    assert columns == [f"* `{name}`" for name in rows]
    assert ("2 captions that a language model wrote." in card) == bool(model)
    assert ("synthetic-data" in card) == bool(model)
