"""All kinds of cases."""

import calls  # noqa: F401
import damaged  # noqa: F401
import lines  # noqa: F401
import machine  # noqa: F401
