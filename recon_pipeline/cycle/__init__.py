"""The whole reconciliation cycle for a shard of profiles, stage by stage. Knows ports, not Dagster.

What belongs here: the order of the stages, what each is given, and that one profile's or one stage's failure stays its own.
What does not: rules (``domain``), writing (``apply``), settings and Dagster.
"""
