from pathlib import Path

import pytest
import yaml

from synth2_lightning.cli import main
from synth2_lightning.cli.setting_errors import suggest_class

OPTIMIZER = "model.init_args.optimizer"
NO_ADAM = f"There is no class 'torch.optim.AdmW' for the setting '{OPTIMIZER}'. Did you mean 'torch.optim.AdamW'?"
NO_RATE = f"There is no setting '{OPTIMIZER}.init_args.lrr'. Did you mean 'lr'?"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trainer.max_stepz=3"], "There is no setting 'trainer.max_stepz'. Did you mean 'max_steps'?"),
        (
            ["--model.init_args.image_encodr=x"],
            "There is no setting 'model.init_args.image_encodr' of VisionLanguageModule. Did you mean 'image_encoder'?",
        ),
        ([f"--{OPTIMIZER}.init_args.lrr=1"], NO_RATE),
        ([f"--{OPTIMIZER}=torch.optim.AdmW"], NO_ADAM),
        (
            ["--model.init_args.decoder=PrefixDecodr"],
            "There is no class 'PrefixDecodr' for the setting 'model.init_args.decoder'. Did you mean "
            "'synth2_lightning.decoders.prefix.PrefixDecoder'?",
        ),
        (
            ["--data.init_args.real=synth2_lightning.datamodules.rael.RealDataModule"],
            "There is no class 'synth2_lightning.datamodules.rael' for the setting 'data.init_args.real'. Did you mean "
            "'synth2_lightning.datamodules.real'?",
        ),
        (
            ["--model.init_args.generation.num_baems=3"],
            "'model.init_args.generation.num_baems' of VisionLanguageModule. Did you mean 'num_beams'?",
        ),
        (
            ["--trainer.max_step=3"],
            "There is no setting 'trainer.max_step'. Did you mean 'max_steps'?",
        ),
        (["--model.init_args.generation.num_beam=3"], "Did you mean 'num_beams'?"),
        (["--trainer.max_steps=fast"], "The setting 'trainer.max_steps' has the value 'fast', expected an integer."),
        (
            [f"--{OPTIMIZER}.init_args.lr=fast"],
            f"The setting '{OPTIMIZER}.init_args.lr' has the value 'fast', expected a number.",
        ),
        (
            ["--data.init_args.real.init_args.train.init_args.num_images=many"],
            "'data.init_args.real.init_args.train.init_args.num_images' has the value 'many', expected an integer.",
        ),
        (
            ["--trainer.precision=half"],
            "The setting 'trainer.precision' has the value 'half', expected one of 'auto', '32-true', 'bf16-mixed', ",
        ),
        (
            [f"--{OPTIMIZER}=torch.nn.Linear"],
            f"The setting '{OPTIMIZER}' has the value 'torch.nn.Linear', expected a subclass of Optimizer.",
        ),
        (
            ["--model=synth2_lightning.modules.recaptioning.RecaptioningModule"],
            "The setting 'model.init_args.checkpoint' is required, expected a checkpoint of `synth2 fit`, ",
        ),
    ],
)
def test_a_mistyped_argument_is_one_sentence(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error


def test_the_checkpoint_of_a_scorer_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--config", "score.yaml"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "'model.init_args.scorer.init_args.checkpoint' is required" in error
    assert "runs/version_1/checkpoints/last.ckpt" in error


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("modle.class_path", "x", "There is no setting 'modle'. Did you mean 'model'?"),
        (
            "model.init_arg.decoder",
            1,
            "'model.init_args.init_arg' of VisionLanguageModule. Did you mean 'init_args'?",
        ),
        ("trainer.max_stepz", 3, "There is no setting 'trainer.max_stepz'. Did you mean 'max_steps'?"),
        (f"{OPTIMIZER}.init_args.lrr", 1.0, NO_RATE),
        (f"{OPTIMIZER}.class_path", "torch.optim.AdmW", NO_ADAM),
        (
            "model.init_args.resampler.init_args.resampler.init_args.num_latent",
            8,
            "resampler.init_args.num_latent' of PerceiverResampler. Did you mean 'num_latents'?",
        ),
        (
            "data.init_args.real.init_args.train.init_args.num_imges",
            8,
            "There is no setting 'data.init_args.real.init_args.train.init_args.num_imges' of ScenesSource. Did you "
            "mean 'num_images'?",
        ),
    ],
)
def test_a_mistyped_key_of_a_run_file_is_one_sentence(
    path: str, value: object, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in reversed(path.split(".")):
        value = {key: value}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", "--config", str(tmp_path / "mine.yaml")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error


def test_a_missing_file_of_a_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--config", "captions.yaml", "--trainer.callbacks.filters=nowhere.yaml"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "filters' has the value 'nowhere.yaml', expected a file that exists" in error


def test_short_keys_leave_out_init_args(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", "--model.optimizer.lr=0.5", "--print_config"])
    assert stop.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5


def test_callbacks_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitr": "val/cider"}},
    ]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    with pytest.raises(SystemExit):
        main(["fit", "--config", "mixed.yaml", "--config", str(tmp_path / "mine.yaml")])
    error = capsys.readouterr().err
    assert "'trainer.callbacks.init_args.monitr' of ModelCheckpoint. Did you mean 'monitor'?" in error


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("synth2_lightning.decoders.PrefixDecoder", "synth2_lightning.decoders.prefix.PrefixDecoder"),
        ("synth2_lightning.decodrs", "synth2_lightning.decoders"),
        ("TimmEncodr", "synth2_lightning.encoders.timm.TimmEncoder"),
    ],
)
def test_similar_import_paths_are_suggested(path: str, expected: str) -> None:
    assert suggest_class(path) == f" Did you mean {expected!r}?"


def test_nothing_similar_is_suggested_for_other_names() -> None:
    assert suggest_class("qqqqqqqq") == ""


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("data: {init_args: {batch_size: 3}}", "There is no setting 'data.init_args.batch_size' of LightningData"),
        ("model: {init_args: {decoder: {}}}", "The run files have no class_path for 'data'."),
    ],
)
def test_an_overlay_without_the_run_file_that_it_changes_is_explained(
    overlay: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(overlay)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / "mine.yaml")])
    error = capsys.readouterr().err
    assert expected in error
    assert "expected the one that it changes before it: --config RUN_FILE --config OVERLAY" in error
