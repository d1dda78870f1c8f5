-- What jobs have generated since a reader last looked, for those who read it as it comes. A job that joined another one
-- has that one's text.
-- ARGV: time|'' (not used), whether to ask for progress at every step from now on ('1'|''), then per job: id, the job
--       whose entries were read so far|'', the last entry that was read|''.
-- Reply: per job {status|false, error_type|'', how often that text started over, the job whose entries these are,
--       tokens before the first of them, {entry's id, text, logprobs|'', ...}}
local _, watches = unpack(ARGV, 1, 2)
local FIRST_JOB, VALUES = 3, 3
local LIVE = {queued = true, started = true, deferred = true, scheduled = true}
local reply = {}

local function watch(id)
  if redis.pcall('HSETNX', JOB .. id, 'watched', '1') == 1 then announce(WATCH, id) end
end

local function tokens_before(entry)
  local _, count = string.gsub(entry[2][2], '%d+', '')
  return string.match(entry[1], '%-(%d+)$') - count
end

local function follow(id, source_before, last)
  local status, error_type, resets, cache_key = unpack(redis.pcall('HMGET', JOB .. id, 'status', 'error_type', 'resets',
    'cache_key'))
  local source = status == 'deferred' and cache_key and leader_of(read_group(cache_key)) or id
  if source ~= id then resets = call('HGET', JOB .. source, 'resets') end
  if LIVE[status] and watches == '1' then watch(source) end
  local from = last ~= '' and source == source_before and '(' .. last or '-'
  local entries, texts = redis.pcall('XRANGE', PROGRESS .. source, from, '+'), {}
  for _, entry in ipairs(entries) do
    texts[#texts + 1] = entry[1]
    texts[#texts + 1] = entry[2][4]
    texts[#texts + 1] = entry[2][6] or ''
  end
  return {status, error_type or '', tonumber(resets or 0), source, entries[1] and tokens_before(entries[1]) or 0, texts}
end

for i = FIRST_JOB, #ARGV, VALUES do reply[#reply + 1] = follow(unpack(ARGV, i, i + VALUES - 1)) end
return reply
