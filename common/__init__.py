"""What every stage needs and what is no format: errors, files, processes, options. It imports no folder of ours."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036, every script comes through here before it meets newer syntax
    sys.exit(f"error: needs Python 3.10 or newer; this is Python {sys.version.split()[0]}")

from common.errors import end_imports_on_interrupt

end_imports_on_interrupt()
