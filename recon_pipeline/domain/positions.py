"""What one account holds, by symbol token. A symbol absent from a complete reading is flat; unknown is not flat."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from recon_pipeline.domain.frames import rows_of


@dataclass(frozen=True)
class AccountPositions:
    """Signed quantities in 1e-9 units by symbol token; None where the reading does not say."""

    held: dict[str, int | None]
    complete: bool

    @classmethod
    def of(cls, positions: pd.DataFrame, *, complete: bool) -> AccountPositions:
        """From the POSITIONS frame of one account; two readings of a symbol that differ make it unknown.

        An entry whose symbol can't be read could be any symbol: the reading is not complete then.
        """
        held: dict[str, int | None] = {}
        for row in rows_of(positions):
            if not row.symbol_token:
                complete = False
                continue
            quantity = int(row.qty_e9) if row.known else None
            if row.symbol_token in held and held[row.symbol_token] != quantity:
                quantity = None
            held[row.symbol_token] = quantity
        return cls(held, complete)

    def quantity(self, token: str) -> int | None:
        """The signed quantity held, or None where it is not known."""
        if token in self.held:
            return self.held[token]
        return 0 if self.complete else None
