"""What lies on disk, one module for each format, and what every stage needs: it imports no other folder of ours."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036, every script comes through here before it meets newer syntax
    sys.exit(f"error: needs Python 3.10 or newer; this is Python {sys.version.split()[0]}")

from formats.errors import end_imports_on_interrupt

end_imports_on_interrupt()
