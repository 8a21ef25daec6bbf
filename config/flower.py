"""Flower's settings: looks only, behind a password, on this machine only unless told otherwise.

The password comes from FLOWER_BASIC_AUTH (user:password). /metrics and /healthcheck answer without it, so fence them
in the proxy when you bind another address than loopback.
"""

import os

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
basic_auth = [os.environ["FLOWER_BASIC_AUTH"]]
read_only = True
max_tasks = 5000
inspect_timeout = 3000.0
purge_offline_workers = 3600
natural_time = False
tasks_columns = "name,state,args,result,received,runtime,worker"
