"""The library under the command: what may be done with batchgen without a terminal.

Import from the modules; what reads or writes rows also loads pyarrow.
"""

from __future__ import annotations

from batchgen.service.rates import Meter, Rates
from batchgen.service.service import Service
from batchgen.service.views import JobView

__all__ = ["JobView", "Meter", "Rates", "Service"]
