"""The one logger. It is configured by the user, never here."""

from __future__ import annotations

import logging

logger = logging.getLogger("sthisto")
