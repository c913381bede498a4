import logging

import pytest

from synth2_lightning.io.log_filters import without_messages


def test_only_the_messages_with_the_text_are_suppressed(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("somebody.else")
    with without_messages("somebody.else", "LOAD REPORT"):
        logger.warning("LOAD REPORT of %s", "bert")
        logger.warning("weights are missing")
    logger.warning("LOAD REPORT afterwards")
    assert [record.getMessage() for record in caplog.records] == ["weights are missing", "LOAD REPORT afterwards"]
