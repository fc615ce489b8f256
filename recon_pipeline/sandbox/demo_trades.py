"""The trades of the demo book: one of each kind that an exit backfill meets, with what is true of it.

Here: the stories, with their numbers. Every story has a symbol of its own on its account, so that none explains
another's position. Not here: how a trade is written down (:mod:`recon_pipeline.sandbox.demo_book`).
"""

from datetime import datetime, timedelta
from decimal import Decimal

from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import backfill_order_id
from recon_pipeline.sandbox.demo_book import DemoBook, LedgerOrder, RevertedBatch

MISSING = "missing_fill_evidence_for_large_remainder"
MILLISECONDS = timedelta(milliseconds=1)
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def demo_book(prefix: str, anchor: datetime) -> DemoBook:
    """Return the book, its times counted back from `anchor`, all its names beginning with `prefix`."""
    book = DemoBook(prefix, anchor)
    _crypto(book)
    _equities(book)
    _mixed(book)
    return book


def _crypto(book: DemoBook) -> None:
    trend = book.profile("btc-trend", "crypto", "Bitcoin trend", 100_000)
    btc = trend.trade("btc-101", "BTC/USD", "buy", "0.5", "95120.40", hours=30)
    lost = btc.lost_exit([("0.49875", "96304.10")], hours=5)
    btc.truth("crypto fee remainder: the fee was taken from the coins", writes={lost: "0.49875"}, dust="0.00125")

    swing = book.profile("eth-swing", "crypto", "Ether swing", 50_000)
    eth = swing.trade("eth-201", "ETH/USD", "buy", "2", "3120.5", hours=26)
    eth.exit([("0.8", "3150.25")], hours=9, suffix="exit-1")
    second = eth.lost_exit([("0.4", "3161"), ("0.3", "3162.5")], hours=8, suffix="exit-2")
    third = eth.lost_exit([("0.495", "3170.75")], hours=7, suffix="exit-3")
    eth.truth("several partial exits, of which one is recorded", writes={second: "0.7", third: "0.495"}, dust="0.005")

    grid = book.profile("sol-grid", "crypto", "Solana grid", 20_000)
    for number, hours in (("301", 20.0), ("302", 19.0)):
        sol = grid.trade(f"sol-{number}", "SOL/USD", "buy", "10", "141.2", hours=hours)
        sol.lost_exit(
            [("9.975", "143.05")],
            hours=hours - 15,
            client_id=f"{book.prefix}-untagged-{number}",
            sub_tag="",
        )
        sol.truth("two equal quantities: untagged exits could be either trade's", left_because=MISSING)

    carry = book.profile("ltc-carry", "crypto", "Litecoin carry", 10_000)
    ltc = carry.trade("ltc-401", "LTC/USD", "buy", "25", "97.35", hours=190)
    ltc.lost_exit([("24.9375", "99.10")], hours=120)
    ltc.truth("evidence older than the look-back of 72 hours", left_because=MISSING)

    mean = book.profile("avax-mean", "crypto", "Avalanche mean reversion", 10_000)
    avax = mean.trade("avax-501", "AVAX/USD", "buy", "100", "15.42", hours=18)
    avax.lost_exit(
        [("99.75", "15.71")], hours=4, client_id=f"otherbot-{book.prefix}-7731", sub_tag="bytelyst:otherbot:t7731"
    )
    avax.truth("foreign tag on the same account", left_because=MISSING)


def _equities(book: DemoBook) -> None:
    momentum = book.profile("aapl-momentum", "equity", "Apple momentum", 50_000)
    aapl = momentum.trade("aapl-601", "AAPL", "buy", "10", "268.40", hours=28)
    lost = aapl.lost_exit([("10", "271.15")], hours=6)
    aapl.truth("missed exit", writes={lost: "10"})
    done = momentum.trade("aapl-600", "AAPL", "buy", "7", "266.10", hours=60)
    done.exit([("7", "267.90")], hours=40)
    done.truth("closed and recorded: nothing to do")

    fractions = book.profile("ford-fractions", "equity", "Ford fractions", 5_000)
    ford = fractions.trade("ford-701", "F", "buy", "5", "12.80", hours=27)
    lost = ford.lost_exit([("4.9995", "12.91")], hours=6)
    ford.truth("dust: less than a cent's worth is left", writes={lost: "4.9995"}, dust="0.0005")

    short = book.profile("tsla-short", "equity", "Tesla short", 80_000)
    tsla = short.trade("tsla-801", "TSLA", "sell", "20", "409.75", hours=25)
    first = tsla.lost_exit([("5", "402.10")], hours=6.5, qty="20", status="replaced")
    rest = tsla.lost_exit([("15", "401.35")], hours=6, suffix="exit-2", qty="15", replaces=first)
    tsla.truth("a short, covered through a replaced order", writes={first: "5", rest: "15"})

    swing = book.profile("msft-swing", "equity", "Microsoft swing", 60_000)
    msft = swing.trade("msft-901", "MSFT", "buy", "12", "494.30", hours=24)
    part = msft.lost_exit(
        [("5", "497.85")], hours=7, suffix="exit-1", qty="12", status="canceled", ledger_status="canceled"
    )
    msft.exit([("7", "498.20")], hours=6, suffix="exit-2")
    msft.truth("exit order canceled after a partial fill", writes={part: "5"})

    pending = book.profile("nvda-breakout", "equity", "Nvidia breakout", 30_000)
    nvda = pending.trade("nvda-1001", "NVDA", "buy", "8", "186.90", hours=23)
    nvda.lost_exit([("8", "189.05")], hours=3, ledger_status="pending_new")
    nvda.truth("pending blocker: the bot's exit row is stuck", left_because="pending_order_blocker")


def _mixed(book: DemoBook) -> None:
    hold = book.profile("amd-hold", "mixed", "AMD hold", 40_000)
    amd = hold.trade("amd-1101", "AMD", "buy", "15", "229.60", hours=22)
    amd.truth("position still open: not a ghost", left_because="exchange_not_flat:15")

    pair = book.profile("meta-pair", "mixed", "Meta pair", 40_000)
    old = pair.trade("meta-1200", "META", "buy", "2", "633.10", hours=50)
    old.exit([("2", "636.40")], hours=45)
    old.truth("closed and recorded: nothing to do")
    meta = pair.trade("meta-1201", "META", "buy", "3", "637.20", hours=21)
    meta.lost_exit([("3", "641.55")], hours=5, sub_tag=old.tag)
    meta.truth("contradictory hints: the two tags name different trades", left_because=MISSING)

    alpha = book.profile("googl-alpha", "mixed", "Alphabet", 40_000)
    googl = alpha.trade("googl-1301", "GOOGL", "buy", "6", "301.75", hours=20)
    googl.order(
        "buy",
        "ENTRY",
        [("4", "302.00")],
        hours=19,
        suffix="",
        ledger_status=None,
        client_id=f"manual-{book.prefix}-1",
        sub_tag="",
    )
    sold = googl.lost_exit([("10", "304.85")], hours=5)
    googl.truth("fill larger than the trade: four shares were bought by hand", writes={sold: "6"})

    doge = book.profile("doge-scalp", "mixed", "Dogecoin scalp", 5_000)
    coins = doge.trade("doge-1401", "DOGE/USD", "buy", "8000", "0.1588", hours=17)
    lost = coins.lost_exit([("7980", "0.1631")], hours=4)
    coins.truth("missed exit at a price below a dollar", writes={lost: "7980"}, dust="20")

    returned = book.profile("amzn-returned", "mixed", "Amazon", 30_000)
    amzn = returned.trade("amzn-1501", "AMZN", "buy", "4", "224.80", hours=29)
    lost = amzn.lost_exit([("4", "227.95")], hours=10)
    filled_at = book.anchor - timedelta(hours=10) + timedelta(minutes=1)
    row = LedgerOrder(
        order_id=backfill_order_id(
            returned.profile.profile_id, "amzn-1501", lost, iso_ms((filled_at - EPOCH) // MILLISECONDS)
        ),
        client_order_id="",
        profile_id=returned.profile.profile_id,
        trade_id="amzn-1501",
        symbol="AMZN",
        side="sell",
        action="EXIT",
        qty=Decimal(4),
        filled_qty=Decimal(4),
        price=Decimal("227.95"),
        status="canceled",
        at=filled_at,
        sub_tag=amzn.tag,
        source="reconciliation_backfill",
    )
    book.reverted.append(RevertedBatch(f"RECON-BFILL-{book.prefix}-returned", row, lost, amzn.client_id("exit")))
    amzn.truth("previously reverted batch: an operator took it back", left_because="previously_reverted")
