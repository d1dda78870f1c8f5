-- Put before submit.lua and finish.lua: the result cache. It keeps no text, only the place of one by cache key: an
-- entry of a results stream and the id of its job (the id alone may come to be another request's). The places are in
-- two hashes, new and old, which expire as a whole, so a place needs no key of its own; the age of a text is its
-- entry's.

-- What a request's text is kept under: the key of the request, and the identity of the model that makes the text, where
-- one is known.
local function cache_key_for(request_key, identity)
  local key = string.match(request_key, '^[^:]*')
  return key ~= '' and identity and identity ~= '' and key .. ':' .. identity or key
end

-- Let ended jobs answer requests like theirs to a model of this identity for cache_ttl seconds. The new hash becomes
-- the old one after that long and is kept as long again, so the last place that came into it lives long enough; so do
-- the texts, however short the job's own lifetime.
local function remember(jobs, identity, cache_ttl, transition)
  local left = call('PTTL', CACHE_NEW) / 1000
  local rotates = left <= cache_ttl or left > 2 * cache_ttl
  if rotates and left >= 0 then
    call('UNLINK', CACHE_OLD) -- a rename over it would free it at once, which may take long
    call('RENAME', CACHE_NEW, CACHE_OLD)
  end
  for _, job in ipairs(jobs) do
    if cache_ttl > lifetime(job, 'result_ttl', transition) then call('EXPIRE', RESULTS .. job.id, cache_ttl) end
    call('HSET', CACHE_NEW, cache_key_for(job.cache_key, identity), job.entry .. ' ' .. job.id)
  end
  if rotates then call('EXPIRE', CACHE_NEW, 2 * cache_ttl) end
end

-- The text at a place if it came there at most cache_ttl seconds ago; an entry's id begins with its milliseconds.
local function read_text(place, cache_ttl)
  local entry, milliseconds, id = string.match(place, '^((%d+)-%d+) (.*)$')
  if milliseconds / 1000 + cache_ttl <= clock('') then return nil end
  return return_value(redis.pcall('XRANGE', RESULTS .. id, entry, entry)[1])
end

-- The text that answers a request with this cache key, if there is one.
local function cached_text(cache_key, cache_ttl)
  for _, hash in ipairs({CACHE_NEW, CACHE_OLD}) do
    local place = call('HGET', hash, cache_key)
    local text = place and read_text(place, cache_ttl)
    if text then return text end
  end
end
