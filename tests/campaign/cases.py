"""All kinds of cases."""

import calls  # noqa: F401
import damaged  # noqa: F401
import damaged_stores  # noqa: F401
import kills  # noqa: F401
import limits  # noqa: F401
import lines  # noqa: F401
import panoramas  # noqa: F401
