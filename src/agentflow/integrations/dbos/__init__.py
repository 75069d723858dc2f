"""Durable runs on PostgreSQL, on one machine or many, by DBOS: agentflow[dbos].

    engine = DbosDurability("postgresql://db/runs", queue="jobs", limits=QueueLimits(concurrency=20))

    engine ──▶ calling   begin, go on, wait            execution ──▶ journal   a body at work; its records
       │          └────▶ runs       rows of DBOS            ▲
       └──▶ opened ──▶ server       DBOS, its loop ─────────┘    leases, keeper   who is alive; what the dead have left

The package `dbos` is needed when an engine is used, not for the import.
"""

from agentflow.integrations.dbos.bodies import BodyOf
from agentflow.integrations.dbos.engine import DbosDurability
from agentflow.integrations.dbos.limits import QueueLimits
from agentflow.integrations.dbos.tokens import Tokens

__all__ = ["BodyOf", "DbosDurability", "QueueLimits", "Tokens"]
