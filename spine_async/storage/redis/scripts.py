"""The Lua scripts: one for each atomic write, and for reads that must be consistent.

Theory of operation: Redis executes a script completely before anything else. So the condition of a write and the write
itself are one step, and a commit is fenced by the first lines of its script. Numbers that a script computes stay below
2**53; all others are compared and stored as the text that the caller gave. Values are never parsed.

`KEYS[1]` is the hash of a run; the other keys of the run begin with its name. `KEYS[2]` is the prefix of the indexes of
all runs. All names have the same hash tag, so all keys are in one slot.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

_PRELUDE = """
local run, runs = KEYS[1], KEYS[2]
local places, scopes, values = run .. ':places', run .. ':scopes', run .. ':values'
local visits, events = run .. ':visits', run .. ':events'
local final = {completed = true, failed = true, stopped = true}
local statuses = {'pending', 'running', 'waiting', 'completed', 'failed', 'stopped'}
local function int(number) return string.format('%.0f', number) end
local function microseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local function milliseconds() return math.floor(microseconds() / 1000) end
local function read(...) return redis.call('HMGET', run, ...) end
local function write(...) redis.call('HSET', run, ...) end
local function is_held(status, owner) return owner and (status == 'running' or status == 'waiting') end
local function move(old, new)
  if old == new then return end
  local found = read('workflow', 'member')
  for _, index in ipairs({runs, runs .. ':' .. found[1]}) do
    if old then redis.call('ZREM', index .. ':' .. old, found[2]) end
    if new then redis.call('ZADD', index .. ':' .. new, 0, found[2]) end
  end
  if new then write('status', new) end
end
local at = 0
local function argument() at = at + 1; return ARGV[at] end
local function each(size, act)
  for _ = 1, tonumber(argument()) do
    if size == 1 then act(argument()) else local first = argument(); act(first, argument()) end
  end
end
local function row(seq)
  local found = redis.call('ZRANGEBYSCORE', visits, seq, seq)[1]
  return {found or '', redis.call('HGET', values, seq) or ''}
end
local function rows(after, limit)
  local found = redis.call('ZRANGEBYSCORE', visits, '(' .. after, '+inf', 'LIMIT', 0, limit)
  for number, member in ipairs(found) do
    found[number] = {member, redis.call('HGET', values, string.match(member, '^%d+')) or ''}
  end
  return found
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, which the server finds by the SHA-1 of its text."""

    body: str
    text: str = field(init=False)
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        text = _PRELUDE + self.body
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "sha", hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


CREATE = Script("""
local commit_id, is_held_now, ttl, created_at, hash = argument(), argument(), argument(), argument(), argument()
local workflow, name, next_seq, status, event = argument(), argument(), argument(), argument(), argument()
if redis.call('EXISTS', run) == 1 then
  local found = read('creation', 'epoch', 'last', 'key', 'next_seq')
  if found[1] ~= commit_id or tonumber(found[2]) > tonumber(is_held_now) or found[3] then return false end
  return {found[4], found[2], found[5]}
end
local now = microseconds()
local key = math.max(now, tonumber(redis.call('GET', runs .. ':last') or '0') + 1)
redis.call('SET', runs .. ':last', int(key))
write('creation', commit_id, 'key', int(key), 'epoch', is_held_now, 'next_seq', next_seq, 'claims', '0',
  'lease', int(math.floor(now / 1000) + tonumber(ttl)), 'workflow', workflow,
  'member', created_at .. string.format('%016.0f', key) .. hash)
each(2, function(name, value) write(name, value) end)
move(false, status)
redis.call('HSET', runs .. ':workflows', workflow, name)
if event ~= '' then redis.call('ZADD', events, 1, '1 ' .. event) end
return {int(key), is_held_now, next_seq}
""")
"""Creates a run unless the id is taken. Answer: key, epoch, next number; or nil."""

CLAIM = Script("""
local owner, ttl, over, unless_ended, token = argument(), argument(), argument(), argument(), argument()
local moment, event, place = argument(), argument(), argument()
local found = read('status', 'owner', 'epoch', 'lease', 'next_seq', 'key', 'claims', 'claim')
local status, holder, epoch, lease, seq = found[1], found[2], found[3], found[4], found[5]
if not status or status == 'completed' then return false end
if found[8] == token then return {'claim', found[6], epoch, seq} end
if unless_ended == '1' and final[status] then return false end
local now = milliseconds()
local is_leased = is_held(status, holder) and tonumber(lease) > now
if is_leased and holder ~= owner and over ~= epoch then return {'busy', holder, epoch, lease} end
local claims = tonumber(found[7])
if final[status] then claims = 1 elseif holder and status == 'running' then claims = claims + 1 end
local next_seq, next_epoch = tonumber(seq), int(tonumber(epoch) + 1)
if event ~= '' then
  local member = seq .. ' ' .. event
  redis.call('ZADD', events, seq, member)
  redis.call('HSET', places, place, member)
  write('updated_at', moment)
  next_seq = next_seq + 1
end
if epoch == '0' then write('started_at', moment) end
move(status, 'running')
write('owner', owner, 'epoch', next_epoch, 'next_seq', int(next_seq), 'claims', int(claims),
  'lease', int(now + tonumber(ttl)), 'claim', token)
redis.call('HDEL', run, 'error_step', 'error', 'error_category', 'stop_reason', 'completed_at', 'due_at',
  'stop_requested')
return {'claim', found[6], next_epoch, int(next_seq)}
""")
"""Claims a run. Answer: `claim`, key, epoch, next number; or `busy`, owner, epoch, end of the lease; or nil."""

RENEW = Script("""
local key, epoch, ttl, token, moment = argument(), argument(), argument(), argument(), argument()
local found = read('status', 'owner', 'epoch', 'key', 'stop_requested', 'released')
if found[3] ~= epoch or found[4] ~= key then return {0, false} end
if found[6] == token then return {1, found[5]} end
if not is_held(found[1], found[2]) then return {0, false} end
write('lease', int(milliseconds() + tonumber(ttl)))
if tonumber(ttl) <= 0 then
  write('due_at', moment, 'released', token)
  redis.call('HDEL', run, 'owner')
end
return {1, found[5]}
""")
"""Extends a lease; without time it releases the run. Answer: whether the claim is current, the requested stop."""

STOP = Script("""
local status = read('status')[1]
if not status or final[status] then return 0 end
write('stop_requested', argument())
return 1
""")
"""Stores a requested stop. Answer: whether the run is under way."""

COMMIT = Script("""
local key, epoch, expected_seq, next_seq, commit_id = argument(), argument(), argument(), argument(), argument()
local makes_progress, counts, new_status = argument(), argument(), argument()
local found = read('status', 'owner', 'epoch', 'key', 'next_seq', 'last', 'claims')
local last = epoch .. ' ' .. commit_id
if found[4] ~= key then return 0 end
if found[3] ~= epoch or found[5] ~= expected_seq or not is_held(found[1], found[2]) then
  return found[6] == last and 1 or 0
end
local claims = makes_progress == '1' and 0 or tonumber(found[7])
move(found[1], new_status)
write('next_seq', next_seq, 'last', last, 'claims', int(claims + tonumber(counts)))
each(2, function(name, value) write(name, value) end)
each(1, function(name) redis.call('HDEL', run, name) end)
each(2, function(seq, member) redis.call('ZADD', visits, seq, member) end)
each(2, function(seq, value) redis.call('HSET', values, seq, value) end)
each(2, function(seq, member) redis.call('ZADD', events, seq, member) end)
each(1, function(member) redis.call('ZADD', scopes, 0, member) end)
each(2, function(name, value) redis.call('HSET', places, name, value) end)
each(2, function(name, value) redis.call('HSETNX', places, name, value) end)
return 1
""")
"""Writes a change if it passes the fence, or recognises it as the last one. Answer: 1, or 0 if it is fenced."""

DELETE = Script("""
local token, only_ended, only_if_parent_ended = argument(), argument(), argument()
local deleted = run .. ':deleted'
local found = read('status', 'workflow', 'parent')
local status, workflow, parent = found[1], found[2], found[3]
if not status then return redis.call('GET', deleted) == token and 1 or 0 end
if only_ended == '1' and not final[status] then return 0 end
if only_if_parent_ended == '1' and parent then
  local of_parent = redis.call('HGET', parent, 'status')
  if of_parent and not final[of_parent] then return 0 end
end
move(status, false)
redis.call('UNLINK', run, places, scopes, values, visits, events)
redis.call('SET', deleted, token, 'PX', 60000)
local left = 0
for _, each_status in ipairs(statuses) do
  left = left + redis.call('ZCARD', runs .. ':' .. workflow .. ':' .. each_status)
end
if left == 0 then redis.call('HDEL', runs .. ':workflows', workflow) end
return 1
""")
"""Removes a run with all its rows, if the conditions hold. Answer: whether it was removed by this call or its retry."""

LOAD = Script("""
if redis.call('EXISTS', run) == 0 then return false end
return {int(milliseconds()), read(unpack(ARGV))}
""")
"""Reads fields of a run. Answer: milliseconds since 1970, the values; or nil."""

PAGE = Script("""
local order, first, last, limit, pages = argument(), argument(), argument(), argument(), {}
each(1, function(index)
  table.insert(pages, redis.call(order, runs .. ':' .. index, first, last, 'LIMIT', 0, limit))
end)
return pages
""")
"""Reads the entries of several indexes of runs at one time. Answer: for each index its first entries in the range."""

COUNT = Script("""
local first, last, counts = argument(), argument(), {}
each(1, function(index) table.insert(counts, redis.call('ZLEXCOUNT', runs .. ':' .. index, first, last)) end)
return counts
""")
"""Counts the entries of indexes of runs."""

NAMES = Script("return redis.call('HVALS', runs .. ':workflows')")
"""The names of the workflows that have a stored run."""

VISITS = Script("return rows(argument(), argument())")
"""Visits with numbers above a number, in order. Answer: pairs of row and values."""

SCOPES = Script("""
local after, limit, found = argument(), argument(), {}
each(1, function(scope)
  local low, high = '(' .. scope .. '\\0' .. string.format('%016.0f', tonumber(after)), '(' .. scope .. '\\1'
  for _, member in ipairs(redis.call('ZRANGEBYLEX', scopes, low, high, 'LIMIT', 0, limit)) do
    table.insert(found, tonumber(string.sub(member, -16)))
  end
end)
table.sort(found)
local page = {}
for number = 1, math.min(#found, tonumber(limit)) do page[number] = row(int(found[number])) end
return page
""")
"""Visits of some scopes with numbers above a number, in order."""

PLACE = Script("""
local seq = redis.call('HGET', places, argument())
return seq and row(seq)
""")
"""The visit whose number is stored under a name."""

FIELD = Script("return redis.call('HGET', places, argument())")
"""What is stored under a name."""

EVENTS = Script("""
local after, limit = argument(), argument()
return {
  read('next_seq')[1],
  redis.call('ZRANGEBYSCORE', events, '(' .. after, '+inf', 'LIMIT', 0, limit),
  redis.call('ZRANGEBYSCORE', visits, after, '+inf', 'LIMIT', 0, tonumber(limit) + 1),
}
""")
"""Stored events above a number, and the visits from which further ones are derived, at one time."""

SCRIPTS = {
    each.sha: each
    for each in (
        CREATE,
        CLAIM,
        RENEW,
        STOP,
        COMMIT,
        DELETE,
        LOAD,
        PAGE,
        COUNT,
        NAMES,
        VISITS,
        SCOPES,
        PLACE,
        FIELD,
        EVENTS,
    )
}
