"""The Lua scripts. Each change of the catalog is one of them, so it is atomic.

Every script may be sent twice (a reply can be lost and the client tries again): sending it again
finds the work done and changes nothing.

The guard that opens every writing script compares what the publisher believes with what Redis holds: its
fence (has another watcher taken over?), its epoch (was the catalog replaced?) and the last seq it knows (did
Redis fall back to older data?). A difference changes nothing and answers with a word. So does damage: keys,
fields or records that were lost, or that have a shape no watcher writes. `count` in meta is the number of
records; another number of fields in the hash is damage, too.
"""

from loradrop.catalog.wire import SCHEMA

_TYPED = """
-- Run a command. Returns true and its reply; false where its key is of another type, or a full stream.
local function typed(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) ~= 'table' or not reply.err then return true, reply end
  if reply.err:find('WRONGTYPE') or reply.err:find('exhausted') then return false end
  return true, redis.call(command, ...)  -- any other error is raised
end
-- Fewer digits than the 14 that Lua writes out in full: one more than such a number must not become 1e+14.
local function is_number(text) return type(text) == 'string' and #text < 14 and text:find('^%d+$') ~= nil end
"""

_GUARD = f"""{_TYPED}
local is_hash, meta = typed('HMGET', KEYS[1], 'fence', 'epoch', 'seq', 'schema', 'count', 'complete')
if not is_hash then return {{'damaged'}} end
if meta[1] ~= ARGV[1] then return {{'fence'}} end
if meta[2] ~= ARGV[2] then return {{'epoch'}} end
if meta[4] ~= '{SCHEMA}' or not is_number(meta[3]) or not is_number(meta[5]) then return {{'damaged'}} end
if tonumber(meta[3]) < tonumber(ARGV[3]) then return {{'regress'}} end
"""

LEAD = f"""
-- Take or keep the lease. A damaged catalog, or one of another schema, is replaced by an empty one.
-- KEYS: meta, watcher, adapters, events.
-- ARGV: owner, ttl ms, epoch for a new catalog, owner presumed dead or ''.
-- Answers {{'held', owner}} or {{'lead', fence, epoch, seq, complete, root}}.
{_TYPED}
local is_hash, owner = typed('HGET', KEYS[2], 'owner')
if not is_hash then redis.call('DEL', KEYS[2]) end
if owner and owner ~= ARGV[1] and owner ~= ARGV[4] then return {{'held', owner}} end
local function is_sound()
  local is_hash, meta = typed('HMGET', KEYS[1], 'epoch', 'seq', 'schema', 'count', 'complete', 'fence')
  if not is_hash then redis.call('DEL', KEYS[1]) return false end
  if not is_number(meta[6]) then redis.call('HDEL', KEYS[1], 'fence') return false end
  if not meta[1] or not meta[1]:find('^%w+$') or not is_number(meta[2]) then return false end
  if meta[3] ~= '{SCHEMA}' then return false end
  if meta[5] ~= '0' and meta[5] ~= '1' then return false end
  local has_records, size = typed('HLEN', KEYS[3])
  return has_records and tostring(size) == meta[4] and (typed('XLEN', KEYS[4]))
end
if not is_sound() then
  redis.call('DEL', KEYS[3], KEYS[4])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'schema', '{SCHEMA}', 'seq', '0', 'count', '0',
    'complete', '0')
end
local fence = redis.call('HGET', KEYS[1], 'fence')
if owner ~= ARGV[1] or not fence then
  fence = tostring(redis.call('HINCRBY', KEYS[1], 'fence', 1))
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'fence', fence)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'complete', 'root')
return {{'lead', fence, meta[1], meta[2], meta[3], meta[4] or ''}}
"""

_TEXT = """
local function text(value)
  if value == nil or value == cjson.null then return '' end
  return value
end
"""

PUBLISH = f"""
-- One record, new or changed. KEYS: meta, adapters, events.
-- ARGV: fence, epoch, last known seq, record without its seq, maxlen.
-- Answers {{'ok', seq}}, or a word of the guard; the same again, but for its times, changes nothing.
{_GUARD}{_TEXT}
local function facts(record)
  local reason = type(record.reason) == 'table' and record.reason or {{}}
  return {{ revision = text(record.revision), state = text(record.state), prefix = text(record.prefix),
    path = text(record.path), code = text(reason.code), message = text(reason.message) }}
end
local record = cjson.decode(ARGV[4])
local new, name = facts(record), record.name
local is_hash, before = typed('HGET', KEYS[2], name)
if not is_hash then return {{'damaged'}} end
local parsed, old = pcall(cjson.decode, before or 'null')
old = parsed and type(old) == 'table' and facts(old) or nil
if old then
  local same = true
  for key, value in pairs(new) do same = same and old[key] == value end
  if same then return {{'ok', meta[3]}} end
end
local kind = 'noted'
if new.revision ~= '' then
  if not old or old.revision == '' then kind = 'added'
  elseif old.revision ~= new.revision then kind = 'modified' end
end
local seq = tostring(redis.call('HINCRBY', KEYS[1], 'seq', 1))
local stored = '{{"seq":' .. seq .. ',' .. ARGV[4]:sub(2)
redis.call('HSET', KEYS[2], name, stored)
if not before then redis.call('HINCRBY', KEYS[1], 'count', 1) end
local is_stream = typed('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'epoch', ARGV[2], 'seq', seq,
  'type', kind, 'name', name, 'revision', new.revision, 'state', new.state, 'reason_code', new.code,
  'reason', new.message, 'at', text(record.updated_at), 'record', stored)
return is_stream and {{'ok', seq}} or {{'damaged'}}
"""

WITHDRAW = f"""
-- One record, gone. KEYS: meta, adapters, events.
-- ARGV: fence, epoch, last known seq, name, reason code, reason, at, maxlen.
-- Answers {{'ok', seq}}, or a word of the guard; a name that is not there changes nothing.
{_GUARD}{_TEXT}
local is_hash, before = typed('HGET', KEYS[2], ARGV[4])
if not is_hash then return {{'damaged'}} end
if not before then return {{'ok', meta[3]}} end
local parsed, old = pcall(cjson.decode, before)
local revision = parsed and type(old) == 'table' and text(old.revision) or ''
local seq = tostring(redis.call('HINCRBY', KEYS[1], 'seq', 1))
redis.call('HDEL', KEYS[2], ARGV[4])
redis.call('HINCRBY', KEYS[1], 'count', -1)
local is_stream = typed('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', 'epoch', ARGV[2], 'seq', seq,
  'type', 'deleted', 'name', ARGV[4], 'revision', revision, 'state', '', 'reason_code', ARGV[5],
  'reason', ARGV[6], 'at', ARGV[7], 'record', '')
return is_stream and {{'ok', seq}} or {{'damaged'}}
"""

REPLACE = """
-- Start the catalog anew: its seq fell back or it is damaged, so it can no longer be followed.
-- KEYS: meta, adapters, events. ARGV: fence, new epoch. Answers {'ok', epoch} or {'fence'}.
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return {'fence'} end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'seq', '0', 'complete', '0', 'count', '0')
return {'ok', ARGV[2]}
"""

COMPLETE = f"""
-- Everything under the prefix has been published in this epoch: what is not in the catalog is not there.
-- KEYS: meta. ARGV: fence, epoch, last known seq. Answers {{'ok', seq}}, or a word of the guard.
{_GUARD}
redis.call('HSET', KEYS[1], 'complete', '1')
return {{'ok', meta[3]}}
"""

EXPECT_ROOT = f"""
-- Which directory the adapters were found in: another one, found empty later, is not the prefix.
-- KEYS: meta. ARGV: fence, epoch, last known seq, root. Answers {{'ok', seq}}, or a word of the guard.
{_GUARD}
redis.call('HSET', KEYS[1], 'root', ARGV[4])
return {{'ok', meta[3]}}
"""

REPORT = f"""
-- The watcher's heartbeat, which keeps its lease, and checks what can be checked at once whatever the size.
-- KEYS: meta, watcher, adapters, events.
-- ARGV: fence, epoch, last known seq, ttl ms, whether the catalog is complete, then field, value, ...
-- Answers {{'ok'}}, or a word of the guard.
-- The fence alone proves nothing: in a Redis that was emptied, fences start from 1 again; and of one that
-- fell back, a watcher with nothing to publish would not notice.
{_GUARD}
local has_records, size = typed('HLEN', KEYS[3])
if not has_records or tostring(size) ~= meta[5] or meta[6] ~= ARGV[5] then return {{'damaged'}} end
if not typed('XLEN', KEYS[4]) or not typed('HGET', KEYS[2], 'owner') then return {{'damaged'}} end
redis.call('HSET', KEYS[2], 'fence', ARGV[1], unpack(ARGV, 6))
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {{'ok'}}
"""

RESIGN = """
-- Give the lease back. KEYS: watcher. ARGV: owner.
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

REQUEST = """
-- Ask for a refresh. KEYS: watcher, refreshes, refresh.
-- ARGV: ttl ms, id, maxlen, most in a minute, at, dry run, then the entry's field, value, ...
-- Answers {'ok'}, {'no watcher'}, or {'later', ms} where the last minute holds too many: ms until one fewer.
-- Entries are numbered, so that the first and the last of a minute tell how many there are.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'no watcher'} end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'ok'} end
local function number(entry)
  for at = 1, entry and #entry[2] or 0, 2 do
    local text = entry[2][at + 1]
    if entry[2][at] == 'number' then return #text < 16 and tonumber(text:match('^%d+$')) or 0 end
  end
  return 0
end
local time = redis.call('TIME')
local minute_ago = time[1] * 1000 + math.floor(time[2] / 1000) - 60000
local first = redis.call('XRANGE', KEYS[2], string.format('%.0f', minute_ago), '+', 'COUNT', 1)[1]
local last = number(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1])
if first and last - number(first) + 1 >= tonumber(ARGV[4]) then
  return {'later', first[1]:match('^%d+') - minute_ago}
end
redis.call('HSET', KEYS[3], 'status', 'pending', 'id', ARGV[2], 'at', ARGV[5], 'dry_run', ARGV[6])
redis.call('PEXPIRE', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'number', string.format('%.0f', last + 1),
  unpack(ARGV, 7))
return {'ok'}
"""
