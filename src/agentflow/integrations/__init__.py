"""Systems of others, one folder or file each; every one stands in for something of core's, and is an extra.

    valkey          limits, budgets and open circuit breakers that several processes share      agentflow[valkey]
    opentelemetry   traces and metrics by the conventions of OpenTelemetry                      agentflow[otel]
    prometheus      metrics for a Prometheus server to fetch                                    agentflow[prometheus]

They are found through the entry-point group `agentflow.integrations`, whose entries take the settings of one system.
Nothing is imported here: what is not installed is missed only by who uses it.
"""
