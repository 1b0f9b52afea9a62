from dynein.core.keys import TriggerKey
from dynein.ingest.receive_history import ReceiveHistory


def test_it_keeps_the_last_messages_only() -> None:
    history = ReceiveHistory(messages_max=2)
    history.recall("a").sent[TriggerKey(1, bytes(12), 0)] = None
    history.finish("b")
    assert history.recall("a").sent
    history.recall("c")
    assert history.recall("a").sent
    assert not history.recall("b").finished, "forgotten: the least recently used"
