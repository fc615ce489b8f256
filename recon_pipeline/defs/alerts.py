"""The sensors that tell people and that give trading back: delivery of events, failed runs, the watchdog's auto-resume.

Dagster concept: sensors that do their small work inside the tick. Not here: how an event is delivered (``alerting``), when a pause
is lifted (``domain.watchdog``) and how (``cycle.resuming``).
"""

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import dagster as dg
from dagster._core.event_api import RunStatusChangeRecordsFilter

from recon_pipeline.alerting.delivery import Delivery, deliver_events
from recon_pipeline.alerting.redaction import Redactor, secrets_of_url
from recon_pipeline.cycle.resuming import resume_where_due
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.resources import Outside
from recon_pipeline.domain.corrections import Event, EventType, Severity
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, connect, secrets_of
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.settings import SettingError, Settings

