from synth2_lightning.modules.generator_card import write_generator_card


def test_absolute_paths_are_shortened_everywhere() -> None:
    parts = {"tokenizer": {"class_path": "a.B", "init_args": {"model": "/home/me/secret/vqgan", "folder": "runs/own"}}}
    data = {"class_path": "a.Data", "init_args": {"sources": [{"path": "~/photos/train.json"}, 3, None]}}
    card = write_generator_card("mine", "codebook:1", parts, data, 1200)
    assert "secret" not in card
    assert "model: …/vqgan" in card
    assert "folder: runs/own" in card
    assert "train.json" in card
    assert "~/photos" not in card
    assert "1,200 optimization steps" in card


def test_unknown_data_is_left_out() -> None:
    assert "data:" not in write_generator_card("mine", "codebook:1", {}, None, 1)
