"""All kinds of cases."""

import calls  # noqa: F401
import damaged  # noqa: F401
import damaged_stores  # noqa: F401
