"""The pure core: frames and values in, frames and values out. No I/O, clock, randomness or environment.

Glossary (one word for one thing)
---------------------------------
account             the exchange account that orders are placed on; several profiles may share it
allocation          quantity of one exchange order that a plan gives to one trade
attribution         the statement that an exchange order belongs to a trade; *strong* by a key the order carries, or
                    *heuristic* by quantity or by being the only candidate
backfill row        a compensating EXIT row, its order id ``BFILL-<md5>``
batch               the backfill rows of one profile planned together, ``RECON-BFILL-<uuid>``
book                one ``recon evaluate`` input: ledger rows, exchange orders and positions of one profile
capacity            executed quantity of an exchange order that nothing in the ledger represents yet
check               what is remembered of one order that may still execute: the exchange's last answer, and when it is asked again
confirmation        a cycle in which something was found out of line again; several in a row are needed before it is acted on
correction          a change of one row of the ledger outside of an exit backfill, with its before, after and cause
coverage            the step that inserts executed orders which the ledger lacks
cycle               one pass of every step over the profiles, every five minutes
decision            what becomes of a trade: DRY_RUN, PENDING_APPLY, APPLIED, SKIP_*, NO_GO
dust                a remainder too small and too cheap to wait for evidence
evidence            an exchange order with executed quantity
execution           one fill of an order, as the exchange reports it
finding             something that a step found and did not change, or could not
flat                the exchange holds no position in the symbol (at most the dust quantity)
foreign             of another bot than those of the account's profiles
ghost               a trade that is open in the ledger and was closed at the exchange
hint                any key on an order that names a trade or a profile, known or not
lifecycle row       a ledger row of an order of a trade
parity              ledger and exchange say the same: of orders (order parity), of positions (position parity)
plan                proposals and decisions with the evidence they cite; data, applied by ``recon_pipeline.apply`` alone
profile             one bot and strategy
quarantine          a trade is out of line, and no cycle may close it: it can't be proven whose it is
represented         already recorded in the ledger, by the order's own row or by a backfill row
slice               one trade with its entry, exit and open quantity
stale               of an order: it may still execute, is older than the threshold, and the exchange has not called it live lately
stand-in            a row that represents an order without being its own row: a backfill row or a synthetic exit
superseded          a stand-in or a double that gave way to the order's own row
synthetic exit      a row PARITY-<md5> that closes a confirmed ghost without an execution to cite
trade               the entry and exit orders of one position of one profile

Invariants (the property tests and the runbook number them the same way)
-----------------------------------------------------------------------
1. Conservation. Per exchange order: executed = represented + allocated + excess. Per trade: open = allocated + dust +
   remaining.
2. Totality. Every open trade ends in exactly one of covered, proposed, skipped, no-go; every exchange order in scope is
   allocated or says why not.
3. No crossing of profile, symbol, side or attribution.
4. No invention. Every written quantity, price and time is copied or summed from cited executions (dust excepted, and
   named so).
5. Order-independence. Shuffling or duplicating inputs changes nothing, the digest included.
6. Fixed point. After an apply, planning again proposes nothing (strong attribution).
7. Inverse. Apply, then rollback, restores every row that nobody else touched.
8. A reading that failed never makes the pipeline write more than a reading that succeeded.
"""
