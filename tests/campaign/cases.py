"""All kinds of cases."""

import calls  # noqa: F401
