"""Bots that trade on the simulated exchange for weeks, mishaps of every kind, and the truth kept beside: the soak.

``cast`` says who trades what, ``bots`` how, ``ledger`` how they write it down, ``mishaps`` what goes wrong, ``truth`` what
is true, ``driver`` lets the time pass, ``cycles`` runs the pipeline in it, ``checker`` judges every write and the end, ``report``
says it. Nothing of the pipeline may be asked what is true.
"""
