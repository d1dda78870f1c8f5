"""A queue's name in RQ says its model and priority, and can be read back."""

from hypothesis import given
from hypothesis import strategies as st

from promptq.contract.queues import PRIORITIES, QueueName, queues_of

MODELS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)


def test_the_default_models_queues_are_what_rq_users_know() -> None:
    assert [queue.rq_name("m") for queue in queues_of("m")] == ["high", "default", "low"]
    assert [queue.rq_name("m") for queue in queues_of("qwen")] == ["qwen:high", "qwen:default", "qwen:low"]


@given(model=MODELS, default=MODELS, priority=st.sampled_from(PRIORITIES))
def test_a_name_is_read_back(model: str, default: str, priority: str) -> None:
    queue = QueueName(model, priority)
    assert QueueName.parse(queue.rq_name(default), default) == queue


def test_an_adapters_colon_is_part_of_the_model() -> None:
    assert QueueName.parse("base:sql:low", "m") == QueueName("base:sql", "low")


def test_a_name_that_is_none_of_ours_counts_as_the_default_queue() -> None:
    assert QueueName.parse("emails", "m") == QueueName.parse("", "m") == QueueName("m", "default")
