import pytest

from orders.isin import is_isin


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
        "US０378331005",  # a full-width digit
        "",
    ],
)
def test_everything_else_does_not(text: str) -> None:
    assert not is_isin(text)
