from __future__ import annotations

import base64
import hmac
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.seal import SIGNATURE_CHARS, Seal

OLD, NEW, FOREIGN = b"0123456789abcdef", b"fedcba9876543210", b"another deployment's secret"
PARTS = st.lists(st.binary(max_size=40), max_size=4)


@given(st.text(max_size=10), PARTS)
def test_what_was_signed_is_ours_and_has_one_signature(use: str, parts: list[bytes]) -> None:
    signature = Seal([OLD]).sign(use, *parts)
    assert len(signature) == SIGNATURE_CHARS
    assert Seal([OLD]).is_ours(signature, use, *parts)
    assert Seal([OLD]).sign(use, *parts) == signature, "by every process of the deployment"


@given(PARTS, PARTS)
def test_other_parts_are_not_ours_even_where_they_make_the_same_bytes(signed: list[bytes], given: list[bytes]) -> None:
    assume(signed != given)
    assert not Seal([OLD]).is_ours(Seal([OLD]).sign("use", *signed), "use", *given)


def test_the_signature_is_an_hmac_of_the_parts_with_their_lengths_by_a_key_of_its_own() -> None:
    """Messages outlive a version of the program: this must not change by accident."""
    key = hmac.new(b"dynein: what is written to its own queues", OLD, "sha256").digest()
    signed = b"".join(len(part).to_bytes(8, "big") + part for part in (b"use", b"ab", b""))
    expected = base64.urlsafe_b64encode(hmac.new(key, signed, "sha256").digest()[:18]).decode()
    assert Seal([OLD]).sign("use", b"ab", b"") == expected


def test_where_a_part_ends_is_signed_too() -> None:
    seal = Seal([OLD])
    assert not seal.is_ours(seal.sign("use", b"ab", b"c"), "use", b"a", b"bc")
    assert not seal.is_ours(seal.sign("use", b"abc"), "use", b"abc", b"")
    assert not seal.is_ours(seal.sign("use", b"a"), "usea")


def test_a_signature_for_one_use_is_none_for_another() -> None:
    seal = Seal([OLD])
    assert not seal.is_ours(seal.sign("one", b"x"), "other", b"x")


@given(PARTS)
def test_another_deployments_signature_is_not_ours(parts: list[bytes]) -> None:
    assert not Seal([OLD, NEW]).is_ours(Seal([FOREIGN]).sign("use", *parts), "use", *parts)


@given(st.text(max_size=SIGNATURE_CHARS + 1))
def test_no_other_text_is_a_signature(text: str) -> None:
    assume(text != Seal([OLD]).sign("use", b"x"))
    assert not Seal([OLD]).is_ours(text, "use", b"x")


def test_every_character_of_a_signature_counts() -> None:
    seal = Seal([OLD])
    signature = seal.sign("use", b"x")
    for i, character in enumerate(signature):
        changed = signature[:i] + ("A" if character != "A" else "B") + signature[i + 1 :]
        assert not seal.is_ours(changed, "use", b"x")
    assert not seal.is_ours(signature[:-1], "use", b"x")


def test_the_first_secret_signs_and_all_verify_so_a_secret_can_be_rotated_in_two_steps() -> None:
    steps = [Seal([OLD]), Seal([OLD, NEW]), Seal([NEW, OLD])]
    for before, after in pairwise(steps):
        # Processes of both steps run at the same time.
        assert after.is_ours(before.sign("use", b"x"), "use", b"x")
        assert before.is_ours(after.sign("use", b"x"), "use", b"x")
    assert not Seal([NEW]).is_ours(Seal([OLD]).sign("use", b"x"), "use", b"x"), "once the old one is dropped"


def test_a_tokens_signature_is_none_of_ours() -> None:
    """Tokens are given to users: none may be of use on our queues."""
    token = TokenSigner([OLD]).sign(JobRef(TokenKind.SCHEDULED, TriggerKey(1, b"x" * 12, 0)))
    body, mac = token[:28], token[28:]
    assert len(mac) == SIGNATURE_CHARS
    seal = Seal([OLD])
    for use, parts in (("", ()), (body, ()), ("", (body.encode(),))):
        assert not seal.is_ours(mac, use, *parts)


def test_without_a_secret_nothing_is_signed() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        Seal([])
