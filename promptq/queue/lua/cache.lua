-- Put before submit.lua and finish.lua: the result cache. It keeps no text, only, by cache key, where there is one: the
-- entry of a results stream, and the job's id, which alone may come to be that of another request. An entry of the cache
-- that ended by itself would need a key of its own, and that costs as much as a job's; so entries are in two generations,
-- each of which goes as a whole, and the age of a text is that of its result.

-- Let jobs answer like prompts for `ttl` seconds. The new generation becomes the old one after that long, and is kept
-- as long again: so the last that came into it live long enough, and so do their results, however soon the job goes.
local function remember(jobs, at, ttl)
  local left, entries = call('PTTL', CACHE_NEW) / 1000, {}
  local turns = left <= ttl or left > 2 * ttl
  for n, job in ipairs(jobs) do
    if ttl > lifetime(job.result_ttl, at, 'result_ttl') then
      call('PEXPIREAT', RESULTS .. job.id, (keep_until(ttl, at)))
    end
    entries[2 * n - 1], entries[2 * n] = job.cache_key, job.entry .. ' ' .. job.id
  end
  if turns and left >= 0 then
    call('UNLINK', CACHE_OLD) -- to rename over it would free it at once
    call('RENAME', CACHE_NEW, CACHE_OLD)
  end
  bulk('HSET', CACHE_NEW, entries)
  if turns then call('PEXPIRE', CACHE_NEW, 2000 * ttl) end
end

-- By cache key, where there may be a text.
local function remembered(cache_keys)
  local found = {}
  for _, generation in ipairs({CACHE_OLD, CACHE_NEW}) do
    for n, place in ipairs(call('HMGET', generation, unpack(cache_keys))) do
      if place then found[cache_keys[n]] = place end
    end
  end
  return found
end

-- The text at a place, if it came there at most `ttl` ms ago by the server's clock: an entry's id begins with its ms.
local function recent_text(place, ttl)
  local entry, ms, id = string.match(place, '^((%d+)-%d+) (.*)$')
  if ms + ttl <= server_ms() then return nil end
  local found = redis.pcall('XRANGE', RESULTS .. id, entry, entry)[1]
  for i = 1, found and #found[2] or 0, 2 do
    if found[2][i] == 'return_value' then return found[2][i + 1] end
  end
end
