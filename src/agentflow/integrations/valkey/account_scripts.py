"""What is decided of accounts, in Lua: each is one call, atomic.

    RESERVE     may a call be charged to these accounts?   ──▶  granted or not, and how they stand
    SETTLE      this is what it has cost; does nothing the second time, and keeps a late reservation from being made
    STANDINGS   how every account stands
    HELD        what nobody has settled

Keys, all in one cluster slot: `calls` (a hash: call → amount, whether it has lapsed, its slices), `leases` (a sorted
set: call → when it lapses, by the server's clock), `names` (a hash: account → its limit as it was named last), and for
each account a hash of its slices: spent | reserved | when it ends, by the clock of whoever charged it. Sums are whole
numbers below 2^53, which Lua's doubles hold exactly; they travel as texts, as Lua writes no more than 14 digits itself.
"""

from __future__ import annotations

from typing import Final

from agentflow.integrations.valkey.scripts import Script

__all__ = ["HELD", "KEPT", "RESERVE", "SETTLE", "STANDINGS"]

KEPT: Final = 7 * 86_400
"""Seconds for which a slice that has ended, and a reservation that has lapsed, can still be settled."""

_COMMON: Final = (
    f"local KEPT = {KEPT}\n"
    + """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local function text(number) return string.format('%.6f', number) end
local function whole(number) return string.format('%.0f', number) end
local function key_of(account) return string.sub(KEYS[1], 1, -6) .. 'at:' .. account end

local function parts(packed)
  local spent, reserved, ends = string.match(packed, '^(%-?%d+)|(%-?%d+)|(.+)$')
  return tonumber(spent), tonumber(reserved), tonumber(ends)
end

local function sums(account, at)
  local spent, reserved, ends = 0, 0, 0
  local fields = redis.call('HGETALL', key_of(account))
  for i = 1, #fields, 2 do
    local s, r, e = parts(fields[i + 1])
    if e > at then spent, reserved, ends = spent + s, reserved + r, math.max(ends, e) end
    if e + KEPT < at then redis.call('HDEL', key_of(account), fields[i]) end
  end
  return {spent = spent, reserved = reserved, ends = ends}
end

local function move(place, reserved, spent)
  local packed = redis.call('HGET', key_of(place[1]), place[2])
  if packed then
    local s, r, e = parts(packed)
    redis.call('HSET', key_of(place[1]), place[2], whole(s + spent) .. '|' .. whole(r - reserved) .. '|' .. text(e))
  end
end

-- What nobody has settled in time is spent; the rest of what is late is seen to by whoever comes next.
local function lapse()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, 200)) do
    local packed = redis.call('HGET', KEYS[1], id)
    local call = packed and cjson.decode(packed)
    if not call or call.lapsed then
      redis.call('HDEL', KEYS[1], id)
      redis.call('ZREM', KEYS[2], id)
    else
      for _, place in ipairs(call.places) do move(place, tonumber(call.amount), tonumber(call.amount)) end
      call.lapsed = true
      redis.call('HSET', KEYS[1], id, cjson.encode(call))
      redis.call('ZADD', KEYS[2], text(now + KEPT), id)
    end
  end
end

local function standing(before, after)
  return {whole(before), whole(after.spent), whole(after.reserved), text(after.ends)}
end
"""
)

RESERVE: Final = Script(
    "reserve",
    _COMMON
    + """
-- KEYS: calls, leases, names, the mark of a call that was settled before it came.
-- ARGV: call, amount, lease, the caller's time, then for each account: name, slice, its end, limit, 1 if it refuses.
local id, amount, at = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[4]) == 1 then return {-1} end
local again = redis.call('HEXISTS', KEYS[1], id) == 1  -- the first answer was lost on its way
local before, after, refused = {}, {}, 0
for i = 5, #ARGV, 5 do before[#before + 1] = sums(ARGV[i], at).spent end
lapse()
for i = 5, #ARGV, 5 do
  local found = sums(ARGV[i], at)
  after[#after + 1] = found
  local full = found.spent + found.reserved + amount > tonumber(ARGV[i + 3])
  if refused == 0 and not again and ARGV[i + 4] == '1' and full then refused = #after end
end
if refused == 0 and not again then
  local places = {}
  for n, found in ipairs(after) do
    local i = 5 * n
    local key, ends = key_of(ARGV[i]), tonumber(ARGV[i + 2])
    local packed = redis.call('HGET', key, ARGV[i + 1])
    local s, r, e = 0, 0, 0
    if packed then s, r, e = parts(packed) end
    redis.call('HSET', key, ARGV[i + 1], whole(s) .. '|' .. whole(r + amount) .. '|' .. text(math.max(e, ends)))
    local left = math.ceil((math.max(found.ends, ends) - at + KEPT) * 1000)
    if left > redis.call('PTTL', key) then redis.call('PEXPIRE', key, left) end
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 3] .. '|' .. ARGV[i + 4])
    places[n] = {ARGV[i], ARGV[i + 1]}
    found.reserved, found.ends = found.reserved + amount, math.max(found.ends, ends)
  end
  redis.call('HSET', KEYS[1], id, cjson.encode({amount = ARGV[2], lapsed = false, places = places}))
  redis.call('ZADD', KEYS[2], text(now + tonumber(ARGV[3])), id)
end
local answer = {refused}
for n, found in ipairs(after) do answer[n + 1] = standing(before[n], found) end
return answer
""",
)

SETTLE: Final = Script(
    "settle",
    _COMMON
    + """
-- KEYS: as above. ARGV: call, amount, the caller's time.
local id, amount, at = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local packed = redis.call('HGET', KEYS[1], id)
if not packed then
  redis.call('SET', KEYS[4], '1', 'EX', 300)
  return {}
end
local before = {}
for n, place in ipairs(cjson.decode(packed).places) do before[n] = sums(place[1], at).spent end
lapse()
packed = redis.call('HGET', KEYS[1], id)
if not packed then return {} end
local call, answer = cjson.decode(packed), {}
local reserved = tonumber(call.amount)
redis.call('HDEL', KEYS[1], id)
redis.call('ZREM', KEYS[2], id)
for n, place in ipairs(call.places) do
  if call.lapsed then move(place, 0, amount - reserved) else move(place, reserved, amount) end
  local named = redis.call('HGET', KEYS[3], place[1]) or '0|1'
  answer[n] = {place[1], named, unpack(standing(before[n], sums(place[1], at)))}
end
return answer
""",
)

STANDINGS: Final = Script(
    "standings",
    _COMMON
    + """
-- KEYS: calls, leases, names. ARGV: the caller's time.
lapse()
local answer = {}
local names = redis.call('HGETALL', KEYS[3])
for i = 1, #names, 2 do
  local found = sums(names[i], tonumber(ARGV[1]))
  if found.ends > 0 then
    answer[#answer + 1] = {names[i], names[i + 1], unpack(standing(0, found))}
  elseif redis.call('EXISTS', key_of(names[i])) == 0 then
    redis.call('HDEL', KEYS[3], names[i])
  end
end
return answer
""",
)

HELD: Final = Script(
    "held",
    _COMMON
    + """
-- KEYS: calls, leases, names.
lapse()
local answer = {}
local calls = redis.call('HGETALL', KEYS[1])
for i = 1, #calls, 2 do
  answer[#answer + 1] = {calls[i], calls[i + 1], redis.call('ZSCORE', KEYS[2], calls[i]) or '0'}
end
return answer
""",
)
