-- Put before submit.lua and finish.lua: the result cache. A text is in its job's own result and nowhere else: here is only,
-- by cache key, whose. An entry that ended by itself would need a key of its own, and that costs as much as a job's; so
-- entries are in two generations, each of which goes as a whole, and the age of a text is that of its result.

-- Let jobs answer like prompts from now on. `entries`: cache key, id, ...; `ttl`: of a text, in ms. The new generation
-- becomes the old one after one ttl, and is kept for a second one, so that the last that came into it live as long.
local function remember(entries, ttl)
  local left = call('PTTL', CACHE .. 'new')
  local turns = left <= ttl or left > 2 * ttl
  if turns then call('UNLINK', CACHE .. 'old') end
  if turns and left > -2 then call('RENAME', CACHE .. 'new', CACHE .. 'old') end
  bulk('HSET', CACHE .. 'new', entries)
  if turns then call('PEXPIRE', CACHE .. 'new', 2 * ttl) end
end

-- By cache key, the ids of jobs that may answer.
local function remembered(cache_keys)
  local ids = {}
  for _, generation in ipairs({'old', 'new'}) do
    for n, id in ipairs(call('HMGET', CACHE .. generation, unpack(cache_keys))) do
      if id then ids[cache_keys[n]] = id end
    end
  end
  return ids
end

-- The text of a job that succeeded at most `ttl` ms ago, by the server's clock: an entry's id begins with its ms.
local function recent_text(id, ttl)
  local last, entry = redis.pcall('XREVRANGE', RESULTS .. id, '+', '-', 'COUNT', 1)[1], {}
  for i = 1, last and #last[2] or 0, 2 do entry[last[2][i]] = last[2][i + 1] end
  if entry.type ~= '1' then return nil end
  local seconds, microseconds = unpack(call('TIME'))
  return string.match(last[1], '%d+') + ttl > 1000 * seconds + microseconds / 1000 and entry.return_value
end
