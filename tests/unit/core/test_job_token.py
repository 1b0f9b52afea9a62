"""Job tokens: what is signed is read back, and nothing else is believed."""

from __future__ import annotations

import base64
import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynein.core.job_token import TOKEN_CHARS, JobRef, TokenKind, TokenSigner, names, parse
from dynein.core.keys import DUE_MAX_MS, JOB_ID_BYTES, TriggerKey
from dynein.errors import InvalidToken

OLD, NEW = b"an old secret of enough bytes", b"a new secret of enough bytes"
SIGNER = TokenSigner([NEW])
REF = JobRef(TokenKind.SCHEDULED, TriggerKey(1_764_000_000_123, bytes(range(12)), 513))

refs = st.builds(
    JobRef,
    st.sampled_from(TokenKind),
    st.builds(
        TriggerKey,
        st.integers(0, DUE_MAX_MS),
        st.binary(min_size=JOB_ID_BYTES, max_size=JOB_ID_BYTES),
        st.integers(0, 65_535),
    ),
)


@given(refs)
def test_what_is_signed_is_read_back(ref: JobRef) -> None:
    token = SIGNER.sign(ref)
    assert SIGNER.verify(token) == ref
    assert parse(token) == ref
    assert len(token) == TOKEN_CHARS
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)


@given(refs, refs, st.text(max_size=TOKEN_CHARS + 1) | st.text(min_size=TOKEN_CHARS, max_size=TOKEN_CHARS))
@example(REF, REF, "é" * TOKEN_CHARS)
@example(REF, REF, "_" * TOKEN_CHARS)
@example(REF, REF, "A" * (TOKEN_CHARS - 2) + "==")
def test_whether_a_token_names_a_job_is_what_parsing_it_says(ref: JobRef, other: JobRef, text: str) -> None:
    token = SIGNER.sign(ref)
    assert names(token, ref.key)
    assert names(token, other.key) == (ref.key == other.key)
    for candidate in (text, token[:4] + text[4:], token[:28] + text[28:], token.replace("-", "+").replace("_", "/")):
        try:
            key = parse(candidate).key
        except InvalidToken:
            assert not names(candidate, ref.key)
        else:
            assert names(candidate, key)
            assert names(candidate, ref.key) == (key == ref.key)


@given(refs)
def test_another_deployments_token_is_refused(ref: JobRef) -> None:
    forged = TokenSigner([OLD]).sign(ref)
    assert parse(forged) == ref, "well-formed"
    with pytest.raises(InvalidToken):
        SIGNER.verify(forged)


@given(refs, refs)
def test_a_signature_does_not_fit_another_job(ref: JobRef, other: JobRef) -> None:
    body_chars = 28  # 21 bytes
    forged = SIGNER.sign(other)[:body_chars] + SIGNER.sign(ref)[body_chars:]
    if ref == other:
        assert SIGNER.verify(forged) == ref
    else:
        with pytest.raises(InvalidToken):
            SIGNER.verify(forged)


def test_every_flipped_bit_is_refused() -> None:
    raw = base64.urlsafe_b64decode(SIGNER.sign(REF))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(InvalidToken):
            SIGNER.verify(base64.urlsafe_b64encode(flipped).decode())


def test_every_flipped_bit_of_the_text_is_refused() -> None:
    token = SIGNER.sign(REF)
    for place, bit in itertools.product(range(len(token)), range(8)):
        forged = token[:place] + chr(ord(token[place]) ^ (1 << bit)) + token[place + 1 :]
        with pytest.raises(InvalidToken):
            SIGNER.verify(forged)


def test_a_token_has_one_spelling() -> None:
    """Standard base64 writes + and / where ours has - and _: were both taken, one job would have many names."""
    tokens = (SIGNER.sign(REF._replace(key=REF.key._replace(due_at_ms=due))) for due in itertools.count())
    token = next(token for token in tokens if "-" in token and "_" in token)
    assert SIGNER.verify(token)
    for respelled in (token.replace("-", "+"), token.replace("_", "/")):
        with pytest.raises(InvalidToken):
            SIGNER.verify(respelled)


@given(st.text(max_size=TOKEN_CHARS + 8) | st.text(min_size=TOKEN_CHARS, max_size=TOKEN_CHARS))
@example("")
@example("=" * TOKEN_CHARS)
@example("A" * TOKEN_CHARS)
@example("é" * TOKEN_CHARS)
@example("\ud800" * TOKEN_CHARS)
@example("A" * (TOKEN_CHARS - 4) + "AA==")
@example("A" * (TOKEN_CHARS - 1) + "\n")
def test_any_text_is_refused_with_our_own_error(text: str) -> None:
    with pytest.raises(InvalidToken):
        SIGNER.verify(text)


def test_tokens_outlive_a_rotation() -> None:
    before = TokenSigner([OLD]).sign(REF)
    during = TokenSigner([NEW, OLD])
    assert during.verify(before) == REF
    assert TokenSigner([NEW]).verify(during.sign(REF)) == REF, "the first secret signs"
    with pytest.raises(InvalidToken):
        TokenSigner([NEW]).verify(before)


@pytest.mark.parametrize("secrets", [[], [b"short"], [NEW, b"short"]])
def test_secrets_too_few_or_too_short(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secret"):
        TokenSigner(secrets)
