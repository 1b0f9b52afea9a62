"""Bodies that are packed with gzip."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
import zlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.content_coding import FREE_BYTES, MEMBERS_MAX, PIECE_BYTES, RATIO_MAX, Gunzip
from dynein.api.problems import MalformedEncoding, RequestTooLarge
from tests.unit.api.setting import Api

JOB = b'{"queue":"demo","body":"hello"}'


async def post(api: Api, body: bytes, coding: str = "gzip", path: str = "/v1/jobs") -> httpx.Response:
    async with api.http() as http:
        return await http.post(path, content=body, headers={"content-encoding": coding})


def unpacked(data: bytes, *, at: list[int] | None = None) -> bytes:
    """Fed in pieces that end ``at`` these places."""
    gunzip = Gunzip()
    cuts = [0, *sorted(at or []), len(data)]
    made = b"".join(piece for start, end in itertools.pairwise(cuts) for piece in gunzip.unpack(data[start:end]))
    gunzip.end()
    return made


# --- the codec --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.lists(st.integers(0, 1500), max_size=6))
def test_what_was_packed_comes_back_however_it_arrives(members: list[bytes], cuts: list[int]) -> None:
    packed = b"".join(map(gzip.compress, members))
    assert unpacked(packed, at=[min(cut, len(packed)) for cut in cuts]) == b"".join(members)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, FREE_BYTES])
def test_sizes_around_those_of_a_piece(size: int) -> None:
    assert unpacked(gzip.compress(b"x" * size)) == b"x" * size


@given(st.binary(min_size=1, max_size=100), st.integers(0, 200))
def test_whatever_is_cut_off_is_noticed(data: bytes, cut: int) -> None:
    packed = gzip.compress(data)
    with pytest.raises(MalformedEncoding):
        unpacked(packed[: min(cut, len(packed) - 1)])


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEncoding):
        unpacked(data)


@pytest.mark.parametrize(
    "tail",
    [b"\0", b"garbage", JOB, gzip.compress(b"x")[:-1]],
    ids=["a null byte", "garbage", "a job", "half a member"],
)
def test_what_follows_the_last_member_is_refused(tail: bytes) -> None:
    with pytest.raises(MalformedEncoding):
        unpacked(gzip.compress(JOB) + tail)


def test_a_small_body_cannot_become_a_large_one() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    made: list[int] = []
    pieces = map(len, Gunzip().unpack(bomb))
    with pytest.raises(RequestTooLarge, match="times"):
        made.extend(pieces)
    assert sum(made) <= FREE_BYTES + RATIO_MAX * len(bomb)


def test_members_are_counted() -> None:
    one = gzip.compress(b"")
    assert unpacked(one * MEMBERS_MAX) == b""
    with pytest.raises(RequestTooLarge, match="members"):
        unpacked(one * (MEMBERS_MAX + 1))


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", " gzip "])
async def test_a_packed_job_is_accepted(coding: str) -> None:
    api = Api()
    assert (await post(api, gzip.compress(JOB), coding)).status_code == 202
    assert api.queues.messages("demo") == ["hello"]


async def test_a_packed_batch_of_jobs_that_are_much_alike_is_accepted() -> None:
    api = Api()
    jobs = [{"queue": "demo", "json": {"customer": 4711 + n, "text": "remind them " * 50}} for n in range(1000)]
    packed = gzip.compress(json.dumps({"jobs": jobs}).encode())
    assert (await post(api, packed, path="/v1/jobs/batch")).json()["accepted"] == 1000


async def test_identity_is_no_coding() -> None:
    assert (await post(Api(), JOB, "identity")).status_code == 202


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "compress", "gzip;q=1", "x" * 1000])
async def test_other_codings_are_refused_with_the_one_that_is_read(coding: str) -> None:
    response = await post(Api(), gzip.compress(JOB), coding)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported-encoding")
    assert response.headers["accept-encoding"] == "gzip"
    assert "xxx" not in response.text


@pytest.mark.parametrize(
    "body",
    [JOB, b"", zlib.compress(JOB), gzip.compress(JOB)[:-5], gzip.compress(JOB) + b"x", b"\x1f\x8b"],
    ids=["plain", "empty", "deflate", "cut off", "followed by more", "a beginning"],
)
async def test_a_body_that_is_not_gzip_is_refused(body: bytes) -> None:
    response = await post(Api(), body)
    assert (response.status_code, response.json()["code"]) == (400, "malformed-encoding")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/tokens"])
async def test_a_bomb_is_refused_before_it_is_unpacked_and_gives_back_its_room(path: str) -> None:
    api = Api()
    bomb = gzip.compress(b'{"jobs":[' + b" " * 100_000_000)
    for _ in range(2):
        tracemalloc.start()
        response = await post(api, bomb, path=path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (response.status_code, response.json()["code"]) == (413, "request-too-large")
        assert peak < 40_000_000
    for _ in range(40):
        assert (await post(api, bomb, path=path)).status_code == 413
    assert (await post(api, JOB, "identity")).status_code == 202


async def test_what_it_unpacks_to_counts_against_the_limit() -> None:
    api = Api(request_bytes_max=1_000)
    large = b'{"queue":"demo","body":"' + b"x" * 1_000 + b'"}'
    response = await post(api, gzip.compress(large))
    assert (response.status_code, response.json()["code"]) == (413, "request-too-large")
