"""The lease table: when an answer of Vault is due again."""

import random
from math import inf

import pytest

from reloader.backends.vault.terms import NotNow, OverAlready, terms_of

BEGAN, WALL = 5000.0, 1_700_000_000.0


def answer(**fields):
    lease = {name: fields.pop(name) for name in ("lease_id", "lease_duration", "renewable") if name in fields}
    return {"lease_id": "", "lease_duration": 0, "renewable": False, "data": fields, **lease}


LEASED = {"lease_id": "database/creds/app/1", "lease_duration": 100}


@pytest.mark.parametrize(
    ("told", "earliest", "latest"),
    [
        pytest.param(answer(**LEASED, renewable=True), 60, 70, id="renewable 100 s"),
        pytest.param(answer(**LEASED, renewable=False), 85, 95, id="non-renewable 100 s"),
        pytest.param(answer(rotation_period=60, ttl=30), 31, 31, id="rotation in 30 s"),
        pytest.param(answer(rotation_schedule="* * * * *", ttl=5), 6, 6, id="rotation in 5 s"),
        pytest.param(answer(certificate="", expiration=WALL + 100), 85, 95, id="certificate that ends in 100 s"),
        pytest.param(answer(secret_id="", secret_id_ttl=60), 51, 57, id="secret_id for 60 s"),
        pytest.param(answer(password="", ttl="1h", lease_duration=2764800), inf, inf, id="nothing that ends"),
    ],
)
def test_each_row_is_due_when_it_says(told, earliest, latest):
    for seed in range(200):
        due = terms_of(told, WALL).due(BEGAN, random.Random(seed)) - BEGAN

        assert earliest <= due <= latest


def test_what_is_being_rotated_right_now_is_an_error_and_not_a_value():
    with pytest.raises(NotNow):
        terms_of(answer(rotation_period=60, ttl=0), WALL)


def test_a_certificate_that_has_ended_is_an_error():
    with pytest.raises(OverAlready):
        terms_of(answer(expiration=str(WALL - 1)), WALL)


def test_a_fleet_that_got_one_lease_together_does_not_come_back_together():
    terms = terms_of(answer(**LEASED, renewable=True), WALL)
    dues = {round(terms.due(BEGAN, random.Random(seed))) for seed in range(200)}

    assert len(dues) == 11


def test_a_lease_that_is_not_renewed_is_issued_anew_before_its_end():
    terms = terms_of(answer(**LEASED, renewable=True), WALL)

    assert 85 <= terms.anew(BEGAN, random.Random(0)) - BEGAN <= 95


def test_a_secret_id_without_an_end_has_none():
    assert terms_of(answer(secret_id="", secret_id_ttl=0), WALL).due(BEGAN, random.Random(0)) == inf
