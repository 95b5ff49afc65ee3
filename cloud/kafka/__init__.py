"""All that speaks Kafka: the topics, a sender that mends itself, readers. The one package that imports aiokafka."""

from cloud.kafka.readers import GroupReader, TopicReader
from cloud.kafka.sender import Sender
from cloud.kafka.topics import BATCHES, DEAD, EARLIER, Headers, KafkaAway, Record, TooLarge, prepare

__all__ = [
    "BATCHES",
    "DEAD",
    "EARLIER",
    "GroupReader",
    "Headers",
    "KafkaAway",
    "Record",
    "Sender",
    "TooLarge",
    "TopicReader",
    "prepare",
]
