"""python -m dltips."""

import sys

from dltips.main import main

sys.exit(main())
