"""The operations behind the commands, without a terminal.

Import from the modules. Modules that read or write rows also load pyarrow.
"""

from __future__ import annotations

from batchgen.service.rates import Meter, Rates
from batchgen.service.service import Service
from batchgen.service.views import JobView

__all__ = ["JobView", "Meter", "Rates", "Service"]
