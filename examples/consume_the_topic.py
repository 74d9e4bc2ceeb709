"""Read the topic of the invitations beside the workers, and print each message as a line of JSON.

    python examples/consume_the_topic.py --bootstrap localhost:9092 --group statistics

A consumer group of its own gets every message, and takes none from the workers: for statistics, or for a copy in
another system. A message says what is *to be sent*, not what was sent, and comes again after a retry, a replay or an
outage, with the same `ce_id`: count distinct ones. What became of it says `--topic outcomes.v1`: of two events with one
key the one with the higher fence is newer.
"""

from __future__ import annotations

import argparse
import json
import signal
from typing import Any, cast

from confluent_kafka import Consumer, KafkaException, Message


def consumer(bootstrap: str, group: str) -> Consumer:
    """A consumer that commits an offset only after the message was handled."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,
        }
    )


def readable(message: Message) -> dict[str, Any]:
    """The message: CloudEvents attributes from its headers (Kafka's binary mode), then key and value."""
    pairs = cast("list[tuple[str, bytes]]", message.headers() or [])
    headers = {name: value.decode() for name, value in pairs}
    key, value = message.key(), message.value()
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "event": {name.removeprefix("ce_"): text for name, text in headers.items() if name.startswith("ce_")},
        "traceparent": headers.get("traceparent"),
        "key": None if key is None else key.decode(),
        "value": None if value is None else json.loads(value),
    }


def main() -> None:
    """Consume until SIGTERM, Ctrl-C, or --count messages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="localhost:9092")
    parser.add_argument("--prefix", default="bidden", help="BIDDEN_TOPIC_PREFIX of the workers")
    parser.add_argument("--topic", default="invitations.v1", help="or outcomes.v1: what became of each delivery")
    parser.add_argument("--group", required=True, help="not BIDDEN_GROUP: that is the workers' own")
    parser.add_argument("--count", type=int, help="end after so many messages")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    source = consumer(options.bootstrap, options.group)
    source.subscribe([f"{options.prefix}.{options.topic}"])
    handled = 0
    try:
        while options.count is None or handled < options.count:
            message = source.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            try:
                print(json.dumps(readable(message)), flush=True)
            except ValueError:  # not one of bidden's messages: the workers put it on the dead-letter topic
                print(json.dumps({"partition": message.partition(), "offset": message.offset(), "error": "invalid"}))
            source.store_offsets(message)
            handled += 1
    except KeyboardInterrupt:
        pass
    finally:
        source.close()  # commits what was stored, and leaves the group


if __name__ == "__main__":
    main()
