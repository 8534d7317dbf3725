"""What a caller may name a run by: safe in logs, headers and stores."""

from __future__ import annotations

import re

TRACE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
