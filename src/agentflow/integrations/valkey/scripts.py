"""The decisions, in Lua: each is one call, atomic, and by the server's clock.

    TAKE     may this reservation go ahead?   ──▶ granted | come back in … seconds
    FINISH   settle it, cancel it, or leave the queue; does nothing the second time
    HOLD     these reservations are still held
    ADJUST   a provider said what is left, or to wait; or what was used while the store was away
    SPEND    may this much be spent of a budget?
    OPEN     until when a circuit breaker is open

A limiter has four keys, all in one cluster slot: a hash of levels, a sorted set of leases (member: reservation, score:
when it expires), and a queue of who waits (a sorted set by arrival, and a hash of what each needs).

A bucket is a level that rises by `rate` a second up to `capacity`. One of which the server knows nothing held nothing
when the server started: its memory may have been lost, and what had been taken before with it. Leases that were lost
are told again by their holders, so for `_QUIET` seconds after its start such a server gives no slot away. (It tells its
age in whole seconds, and may tell one too many; so it is taken to be up to two seconds younger than it is.)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ADJUST", "FINISH", "HOLD", "OPEN", "SPEND", "TAKE", "Script"]

_QUIET: Final = 2  # seconds; every holder of a slot is heard of within about one (outbox.py, and _RETRY in store.py)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest by which the server knows it, once it has seen it."""

    name: str
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# `tostring` keeps 14 digits, too few for microseconds since 1970.
_TIME: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function text(number) return string.format('%.6f', number) end
"""

# Buckets come as groups of four at the end of ARGV: name, capacity, rate a second, amount.
_BUCKETS: Final = (
    _TIME
    + """
local function buckets_from(first)
  local found = {}
  for i = first, #ARGV, 4 do
    found[#found + 1] = {name = ARGV[i], capacity = tonumber(ARGV[i + 1]), rate = tonumber(ARGV[i + 2]),
                         amount = tonumber(ARGV[i + 3])}
  end
  return found
end

local function started()
  local info = redis.pcall('INFO', 'server')
  local up = type(info) == 'string' and tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  return now - math.max(0, (up or 0) - 1)
end

local function read(buckets)
  local head = redis.call('HMGET', KEYS[1], 'at', 'born', 'drained')
  local state = {born = tonumber(head[2]) or started(), drained = tonumber(head[3]) or 0}
  local at = tonumber(head[1]) or state.born
  for _, bucket in ipairs(buckets) do
    local level, since = tonumber(redis.call('HGET', KEYS[1], bucket.name)), at
    if not level then level, since = 0, state.born end
    bucket.level = math.min(bucket.capacity, level + math.max(0, now - since) * bucket.rate)
  end
  return state
end

-- A bucket that is full again needs no memory: the key goes when all are.
local function write(buckets, state)
  local fields = {'at', text(now), 'born', text(state.born), 'drained', text(state.drained)}
  local longest = math.max(0, state.drained - now)
  for _, bucket in ipairs(buckets) do
    fields[#fields + 1] = bucket.name
    fields[#fields + 1] = text(bucket.level)
    longest = math.max(longest, (bucket.capacity - bucket.level) / bucket.rate)
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('PEXPIRE', KEYS[1], math.ceil((longest + 60) * 1000))
end

local function leave(id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
end
"""
)

TAKE: Final = Script(
    "take",
    _BUCKETS
    + f"local QUIET = {_QUIET}\n"
    + """
-- ARGV: id, lease, slots (0: no limit), patience, longest sleep, then the buckets. Seconds throughout.
local id, lease, slots = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local patience, nap = tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('ZSCORE', KEYS[2], id) then return {1, '0'} end  -- the first answer was lost on its way
local buckets = buckets_from(6)
local state = read(buckets)
local wait = math.max(0, state.drained - now)
local ahead = 0

-- Who came first is served first, as long as it comes back when it was told to.
local needed = {}
for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if other == id then break end
  local packed = redis.call('HGET', KEYS[4], other)
  local back = packed and tonumber(string.match(packed, '^[^|]+'))
  if not back or back < now then
    leave(other)
  else
    ahead = ahead + 1
    for name, amount in string.gmatch(packed, '|([^=|]+)=([^|]+)') do
      needed[name] = (needed[name] or 0) + tonumber(amount)
    end
  end
end

for _, bucket in ipairs(buckets) do
  local missing = (needed[bucket.name] or 0) + bucket.amount - bucket.level
  if missing > 0.000001 then wait = math.max(wait, missing / bucket.rate) end
end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now))
if slots > 0 then
  local used = redis.call('ZCARD', KEYS[2])
  if now - state.born < QUIET then
    wait = math.max(wait, state.born + QUIET - now)
  elseif used + ahead >= slots then
    wait = math.max(wait, 0.05)
  end
end
if ahead > 0 then wait = math.max(wait, 0.005 * ahead) end

if wait <= 0 then
  for _, bucket in ipairs(buckets) do bucket.level = bucket.level - bucket.amount end
  write(buckets, state)
  redis.call('ZADD', KEYS[2], text(now + lease), id)
  redis.call('PEXPIRE', KEYS[2], math.ceil(lease * 1000) + 1000)
  leave(id)
  return {1, '0'}
end

write(buckets, state)
if wait > patience then
  leave(id)
  return {0, text(wait)}
end
local packed = text(now + math.min(wait, nap) + 1)
for _, bucket in ipairs(buckets) do packed = packed .. '|' .. bucket.name .. '=' .. text(bucket.amount) end
redis.call('ZADD', KEYS[3], 'NX', text(now), id)
redis.call('HSET', KEYS[4], id, packed)
redis.call('PEXPIRE', KEYS[3], math.ceil((nap + 60) * 1000))
redis.call('PEXPIRE', KEYS[4], math.ceil((nap + 60) * 1000))
return {0, text(wait)}
""",
)

FINISH: Final = Script(
    "finish",
    _BUCKETS
    + """
-- ARGV: id, then the buckets; an amount is what goes back (below 0: what was used beyond the estimate).
leave(ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
local buckets = buckets_from(2)
if #buckets > 0 then
  local state = read(buckets)
  for _, bucket in ipairs(buckets) do bucket.level = math.min(bucket.capacity, bucket.level + bucket.amount) end
  write(buckets, state)
end
return 1
""",
)

HOLD: Final = Script(
    "hold",
    _TIME
    + """
-- KEYS: leases. ARGV: lease, then ids.
local lease = tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], text(now + lease), ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(lease * 1000) + 1000)
return #ARGV - 1
""",
)

ADJUST: Final = Script(
    "adjust",
    _BUCKETS
    + """
-- ARGV: mode, seconds to wait, then the buckets. What an amount is depends on the mode:
--   left   the most that is left
--   drain  the most that is left once the wait is over: whoever has gathered by then goes at the rate, not in one burst
--   used   what was taken elsewhere, as far as it is there to be taken
local mode, wait = ARGV[1], tonumber(ARGV[2])
local buckets = buckets_from(3)
local state = read(buckets)
state.drained = math.max(state.drained, now + wait)
for _, bucket in ipairs(buckets) do
  if mode == 'left' then
    bucket.level = math.min(bucket.level, bucket.amount)
  elseif mode == 'drain' then
    bucket.level = math.min(bucket.level, bucket.amount - (state.drained - now) * bucket.rate)
  else
    bucket.level = bucket.level - math.max(0, math.min(bucket.amount, bucket.level))
  end
end
write(buckets, state)
return 1
""",
)

SPEND: Final = Script(
    "spend",
    _TIME
    + """
-- KEYS: a hash of what each spender spent in the window. ARGV: limit, seconds of a window, spender, its number of this
-- message, the window it believes in, what it spent in it so far, what it wants to spend.
local limit, length, who = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local window = math.floor(now / length)
local rest = (window + 1) * length - now
if tonumber(redis.call('HGET', KEYS[1], 'window') or -1) ~= window then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'window', string.format('%d', window))
  redis.call('PEXPIRE', KEYS[1], math.ceil(rest * 1000) + 1000)
end
local number = 'n:' .. who
if tonumber(ARGV[5]) == window and tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[1], number) or 0) then
  redis.call('HSET', KEYS[1], 's:' .. who, ARGV[6], number, ARGV[4])
end
local total = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 2) == 's:' then total = total + tonumber(fields[i + 1]) end
end
local amount = tonumber(ARGV[7])
local granted = 0
if amount > 0 and total + amount <= limit + 0.000000001 then
  granted, total = 1, total + amount
  redis.call('HINCRBYFLOAT', KEYS[1], 's:' .. who, ARGV[7])
end
return {granted, string.format('%d', window), string.format('%.9f', total), text(rest), text(now)}
""",
)

OPEN: Final = Script(
    "open",
    """
-- KEYS: a key that lives as long as the breaker is open. ARGV: milliseconds that it opened for; 0 to ask.
local left, wanted = redis.call('PTTL', KEYS[1]), tonumber(ARGV[1])
if wanted > 0 and wanted > left then
  redis.call('SET', KEYS[1], '1', 'PX', wanted)
  left = wanted
end
return math.max(0, left)
""",
)
