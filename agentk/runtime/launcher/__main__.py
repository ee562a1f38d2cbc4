"""`python -I -m agentk.runtime.launcher --state DIR --run DIR`."""

import sys

from agentk.runtime.launcher.main import main

sys.exit(main())
