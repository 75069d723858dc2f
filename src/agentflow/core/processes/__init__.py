"""Work beside this process: `on="process"` runs a node's exec in a pool of worker processes.

pool.py      the workers and the queue for them: call_in_process(function, *args)
worker.py    one of them, seen from here; what it does there stands in agentflow/process_worker.py
calls.py     what travels between the two
"""
