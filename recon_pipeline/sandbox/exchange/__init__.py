"""The simulated exchange: Alpaca's paper Trading API over real HTTP, with a state that tests and the sandbox control.

`with running_exchange() as sim:` serves a book at `sim.url` and `sim.stream_url`; `sim.book` is the state and
`sim.faults` what goes wrong. Clients must not be able to tell it from Alpaca; nothing of the pipeline belongs here.
"""

from recon_pipeline.sandbox.exchange.accounts import Account, AccountSettings, KeyPair
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.clock import SimClock
from recon_pipeline.sandbox.exchange.faults import Fault, FaultKind, Faults
from recon_pipeline.sandbox.exchange.history import HistoricFill, HistoricOrder
from recon_pipeline.sandbox.exchange.server import SimulatedExchange, running_exchange
from recon_pipeline.sandbox.exchange.trading import TradingRules

__all__ = [
    "Account",
    "AccountSettings",
    "ExchangeBook",
    "Fault",
    "FaultKind",
    "Faults",
    "HistoricFill",
    "HistoricOrder",
    "KeyPair",
    "SimClock",
    "SimulatedExchange",
    "TradingRules",
    "running_exchange",
]
