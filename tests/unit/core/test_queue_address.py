"""Queue names and URLs from outside."""

import pytest

from dynein.core.queue_address import QueueAddresses
from dynein.errors import UnknownQueue

AWS = QueueAddresses("https://sqs.eu-west-1.amazonaws.com", "eu-west-1")
CHINA = QueueAddresses("https://sqs.cn-north-1.amazonaws.com.cn", "cn-north-1")
US = QueueAddresses("https://sqs.us-east-1.amazonaws.com", "us-east-1")
EMULATOR = QueueAddresses("http://localstack:4566", "us-east-1")


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 80, "a.fifo", "x" * 75 + ".fifo"])
def test_names(name: str) -> None:
    AWS.check(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 81, "x" * 76 + ".fifo", ".fifo", "a.b", "a.FIFO", "ü", "a\n"])
def test_what_is_no_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(UnknownQueue, match="Send 1 to 80 letters"):
        AWS.check(name)


def test_an_arn_is_refused_with_what_to_give_in_its_place() -> None:
    with pytest.raises(UnknownQueue, match=r"is an ARN\. Send the queue's name or URL"):
        AWS.check("arn:aws:sqs:eu-west-1:123456789012:a")


@pytest.mark.parametrize(
    ("addresses", "url"),
    [
        (AWS, "https://sqs.eu-west-1.amazonaws.com/123456789012/a"),
        (AWS, "https://sqs.eu-west-1.amazonaws.com:443/123456789012/a.fifo"),
        (AWS, "https://SQS.eu-west-1.amazonaws.com/123456789012/a"),
        (AWS, "https://eu-west-1.queue.amazonaws.com/123456789012/a"),
        (AWS, "https://sqs-fips.eu-west-1.amazonaws.com/123456789012/a"),
        (AWS, "https://sqs.eu-west-1.api.aws/123456789012/a"),
        (AWS, "https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com/123456789012/a"),
        (US, "https://queue.amazonaws.com/123456789012/a"),
        (CHINA, "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/a"),
        (EMULATOR, "http://localstack:4566/000000000000/a"),
        (EMULATOR, "http://localhost:4566/000000000000/a"),
        (EMULATOR, "http://127.0.0.1:4566/000000000000/a"),
        (EMULATOR, "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/a"),
        (EMULATOR, "http://localhost:4566/queue/us-east-1/000000000000/a"),
        (EMULATOR, "http://sqs.us-east-1.localhost:4566/000000000000/a"),
    ],
)
def test_urls_of_sqs_and_of_the_own_endpoint(addresses: QueueAddresses, url: str) -> None:
    addresses.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com.evil.example/123456789012/a",
        "https://evil.example/sqs.eu-west-1.amazonaws.com/a",
        "https://evilsqs.eu-west-1.amazonaws.com/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com@evil.example/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com%2eevil.example/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com\\@evil.example/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com\n.evil.example/123456789012/a",
        "https://bucket.s3.eu-west-1.amazonaws.com/123456789012/a",
        "https://169.254.169.254/123456789012/a",
        "http://localhost:4566/000000000000/a",
        "http://[::1/000000000000/a",
    ],
)
def test_other_hosts_are_refused(url: str) -> None:
    with pytest.raises(UnknownQueue):
        AWS.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "://a",
        "ftp://sqs.eu-west-1.amazonaws.com/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com/",
        "https://sqs.eu-west-1.amazonaws.com/a",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/a?Action=DeleteQueue",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/a#b",
        "https://user:secret@sqs.eu-west-1.amazonaws.com/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com:port/123456789012/a",
        "https://sqs.eu-west-1\n.amazonaws.com/123456789012/a",
        "https://sqs.eu-west-1.amazonaws.com/ä/a",
    ],
)
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(UnknownQueue):
        AWS.check(url)


@pytest.mark.parametrize(
    "host", ["sqs.us-east-1.amazonaws.com", "us-west-2.queue.amazonaws.com", "queue.amazonaws.com"]
)
def test_a_queue_of_another_region_is_refused_since_its_name_would_mean_one_of_ours(host: str) -> None:
    with pytest.raises(UnknownQueue, match="this deployment serves eu-west-1"):
        AWS.check(f"https://{host}/123456789012/a")
