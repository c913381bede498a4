import logging

import pytest
from lightning.pytorch import Trainer

from synth2_lightning.cli import main
from synth2_lightning.cli.errors import UsageError, hide_noise, report_errors


class BrokenError(Exception):
    """Error that a user cannot correct."""


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(BrokenError), report_errors():
        raise BrokenError


def test_an_expected_error_is_printed_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["weights", "gpt-5"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "gpt-5" in error
    assert "Traceback" not in error


def test_wrong_words_and_ctrl_c_have_exit_codes_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in ((UsageError("a \x1b[2J word"), 2), (KeyboardInterrupt(), 130)):
        with pytest.raises(SystemExit) as stop, report_errors():
            raise error
        assert stop.value.code == code
    assert "\x1b[2J" not in capsys.readouterr().err


def test_a_traceback_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_TRACEBACK", "1")
    with pytest.raises(ValueError, match="gpt-5"):
        main(["weights", "gpt-5"])


def test_advertisements_of_lightning_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    hide_noise()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO):
        for message in (
            "💡 Tip: For seamless cloud logging, try",
            "TPU available: False, using: 0",
            "Restored all states",
        ):
            logger.info(message)
    assert caplog.messages == ["Restored all states"]


def test_devices_that_a_cpu_does_not_have_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), report_errors():
        Trainer(accelerator="cpu", devices=-1, logger=False)
    assert "The trainer's settings are inconsistent. Lightning reports: `devices`" in capsys.readouterr().err
