"""A simulated provider and simulated callers around the real guards, in virtual time.

    traffic ─▶ world: real Pipeline, limiter, breaker, shedder ─▶ provider (a model of a server) ─▶ measures
                                                                  └▶ ideal: the same server, for who knows the future

`scenarios` says what is played and with which guards; `plots` needs matplotlib, and nothing else here does.
"""
