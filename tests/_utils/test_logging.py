"""Messages that name what they are about."""

import logging
from threading import Thread

from sthisto._utils.logging import about, logger


def test_messages_name_their_subject_and_warnings_are_kept(caplog):
    caplog.set_level(logging.INFO, logger="sthisto")
    with about("100 % tumor") as warnings:
        logger.warning("%d of %d spots", 1, 2)
        logger.info("read")
        logger.warning("half is 50 %")
    logger.warning("after")
    assert caplog.messages == ["100 % tumor: 1 of 2 spots", "100 % tumor: read", "100 % tumor: half is 50 %", "after"]
    assert warnings == ["1 of 2 spots", "half is 50 %"]


def test_messages_of_another_thread_and_after_the_block_are_not_named(caplog):
    with about("A") as warnings:
        thread = Thread(target=logger.warning, args=("of another thread",))
        thread.start()
        thread.join()
    logger.warning("after")
    assert caplog.messages == ["of another thread", "after"]
    assert warnings == []
