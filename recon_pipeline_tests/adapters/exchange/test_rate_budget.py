"""The account's requests: shared by threads, the exchange's count wins, a share is left to the bots."""

from __future__ import annotations

import threading

import pytest

from recon_pipeline.exchange.gateway import RateLimitedError
from recon_pipeline.exchange.rate_budget import RateBudget, RateBudgets, RateReport, Timing


class Held:
    """Clocks that stand still but for sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.timing = Timing(wall=lambda: self.now, steady=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_share_of_every_window_is_left_to_the_bots() -> None:
    held = Held()
    budget = RateBudget(per_minute=10, reserve=0.2, timing=held.timing)
    for _ in range(8):
        budget.take(deadline=held.now)
    with pytest.raises(RateLimitedError) as caught:
        budget.take(deadline=held.now + 59)
    assert caught.value.reset_in == 60
    budget.take(deadline=held.now + 60)
    assert held.slept == [60]


def test_the_count_of_the_exchange_wins_because_the_bots_use_it_too() -> None:
    held = Held()
    budget = RateBudget(per_minute=200, reserve=0, timing=held.timing)
    budget.take(deadline=held.now)
    budget.report(RateReport(limit=200, remaining=1, reset_in=30))
    budget.take(deadline=held.now)
    budget.take(deadline=held.now + 60)
    assert held.slept == [30]
    assert budget.remaining == 199


def test_an_answer_that_was_overtaken_does_not_give_requests_back() -> None:
    held = Held()
    budget = RateBudget(per_minute=200, reserve=0, timing=held.timing)
    budget.take(deadline=held.now)
    budget.report(RateReport(200, 50, 30))
    budget.report(RateReport(200, 120, 30))
    assert budget.remaining == 50


def test_a_refusal_leaves_nothing_until_the_reset() -> None:
    held = Held()
    budget = RateBudget(timing=held.timing)
    budget.take(deadline=held.now)
    budget.refused(RateReport(None, None, 12))
    budget.take(deadline=held.now + 60)
    assert held.slept == [12]


def test_a_small_limit_is_never_all_reserve() -> None:
    held = Held()
    budget = RateBudget(per_minute=200, reserve=0.1, timing=held.timing)
    budget.report(RateReport(5, 5, 60))
    for _ in range(5):
        budget.take(deadline=held.now)


def test_threads_share_one_budget_and_never_overdraw_it() -> None:
    held = Held()
    budgets = RateBudgets(per_minute=100, reserve=0, timing=held.timing)
    taken: list[int] = []

    def work() -> None:
        for _ in range(50):
            try:
                budgets.of("A1").take(deadline=held.now)
            except RateLimitedError:
                continue
            taken.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 100
    budgets.of("A2").take(deadline=held.now)


@pytest.mark.parametrize(
    ("headers", "report"),
    [
        ({}, RateReport(None, None, None)),
        (
            {"X-Ratelimit-Limit": "200", "X-Ratelimit-Remaining": "7", "X-Ratelimit-Reset": "1030"},
            RateReport(200, 7, 30),
        ),
        ({"X-Ratelimit-Reset": "900"}, RateReport(None, None, 0)),
        ({"X-Ratelimit-Reset": "99999999"}, RateReport(None, None, 60)),
        (
            {"X-Ratelimit-Limit": "0", "X-Ratelimit-Remaining": "-3", "X-Ratelimit-Reset": "soon"},
            RateReport(None, 0, None),
        ),
        ({"X-Ratelimit-Reset": "1793718042", "Date": "Tue, 03 Nov 2026 15:00:00 GMT"}, RateReport(None, None, 42)),
        ({"X-Ratelimit-Reset": "1020", "Date": "yesterday"}, RateReport(None, None, 20)),
    ],
)
def test_headers_are_read_tolerantly_and_a_wait_is_never_longer_than_a_window(
    headers: dict[str, str], report: RateReport
) -> None:
    assert RateReport.of(headers, wall=1000.0) == report
