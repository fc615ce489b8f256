"""The partitions: one per profile, kept in step with the table ``profiles`` by a sensor.

Dagster concept: DynamicPartitionsDefinition. Ranges are contiguous in the order in which keys were added. Not here: the
sensor (``sensors``) and how shards are cut (``schedules``).
"""

import dagster as dg

PROFILES = "profiles"

profiles_partitions = dg.DynamicPartitionsDefinition(name=PROFILES)

_FORBIDDEN = ("...", *(chr(code) for code in range(32)))


def can_be_a_partition(profile_id: str) -> bool:
    """Whether Dagster takes the id as a partition key."""
    return bool(profile_id) and not any(part in profile_id for part in _FORBIDDEN)
