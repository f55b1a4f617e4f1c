from itertools import product
from string import ascii_uppercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import isin as library

from orders import isin
from orders.isin import SPECIAL_PREFIXES, is_isin, why_not


@pytest.mark.parametrize(
    "isin",
    # Apple, SAP, Nestlé, Treasury (letters inside), BAE Systems, Microsoft
    ["US0378331005", "DE0007164600", "CH0038863350", "AU0000XVGZA3", "GB0002634946", "US5949181045"],
)
def test_true_isins_pass(isin: str) -> None:
    assert is_isin(isin)


@pytest.mark.parametrize(
    "text",
    [
        "US0378331006",  # wrong check digit
        "US0373831005",  # two digits swapped
        "us0378331005",
        "US037833100",
        "US03783310055",
        "U50378331005",
        "US037833100A",
        "US0378331005\n",
        "US 0378331005",
        "US０378331005",  # a full-width digit
        "ZZ0378331001",  # the check digit is right, and there is no such country
        "UK0002634947",  # the United Kingdom's prefix is GB
        "",
    ],
)
def test_everything_else_does_not(text: str) -> None:
    assert not is_isin(text)


PREFIXES = st.text(ascii_uppercase, min_size=2, max_size=2)
NUMBERS = st.text(ascii_uppercase + digits, min_size=9, max_size=9)


@given(prefix=PREFIXES, number=NUMBERS, spoil=st.sampled_from([str, str.lower, lambda text: f"{text[:4]} {text[4:]}"]))
def test_the_library_is_followed_but_for_case_and_blanks(prefix: str, number: str, spoil: type[str]) -> None:
    text = spoil(library.from_natid(prefix, number))
    assert is_isin(text) == (library.is_valid(text) and text == library.compact(text))


@given(prefix=st.sampled_from(["US", "DE", *SPECIAL_PREFIXES]), number=NUMBERS, digit=st.sampled_from(digits))
def test_one_check_digit_of_ten_is_right_and_the_error_names_it(prefix: str, number: str, digit: str) -> None:
    text = prefix + number + digit
    right = library.calc_check_digit(prefix + number)
    assert is_isin(text) == (digit == right)
    assert digit == right or f"it would be {right}." in why_not(text)


def test_the_error_lists_every_prefix_that_is_no_country() -> None:
    two_letters = ["".join(pair) for pair in product(ascii_uppercase, repeat=2)]
    taken = {prefix for prefix in two_letters if is_isin(library.from_natid(prefix, "1"))}
    # ISO 3166 has 249 countries. The library also keeps two that are no more: AN and CS.
    assert len(taken - set(SPECIAL_PREFIXES)) == 251
    assert len(taken) == 261
    assert why_not("ZZ0378331001") == (
        "No ISIN begins with ZZ. Allowed are the two-letter country codes of ISO 3166, and EU, QS, QT, XA, XB, XC, XD, "
        "XF, XK, XS."
    )


def test_what_cannot_be_an_isin_is_not_remembered() -> None:
    before = isin._is_valid.cache_info().currsize
    is_isin("X" * 60_000)
    assert isin._is_valid.cache_info().currsize == before
