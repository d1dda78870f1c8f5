-- Keep what running jobs have generated since the last time, so that whoever runs them next goes on there. Only the
-- worker that still holds a claim may: its member id:execution of rq:wip is the fence.
-- An entry's id is {how often the job started over, and one}-{tokens up to its end}, so a repeat after a lost answer
-- adds nothing. Nothing is added behind a gap: where the server has lost what came before, no more is kept of this run.
-- ARGV: time|'' (not used), identity of the model, seconds to keep, then per claim: queue, id, execution, tokens before
--       these, tokens after, token ids, text, logprobs|''.
-- Reply: per claim 'ok' | 'watched' (as ok, and somebody reads along) | 'lost' | 'failed' (entries before are lost, or
--        its key is no stream)
local _, identity, keep_seconds = unpack(ARGV, 1, 3)
local FIRST_CLAIM, VALUES = 4, 8
local reply, moved, full = {}, {}, nil

-- How many of a job's tokens are kept; nil: nobody can tell.
local function tokens_kept(id)
  local newest = redis.pcall('XREVRANGE', PROGRESS .. id, '+', '-', 'COUNT', 1)
  if newest.err then return nil end
  return newest[1] and string.match(newest[1][1], '%-(%d+)$') or '0'
end

local function append(queue, id, execution, before, after, token_ids, text, logprobs)
  local status, resets, watched = unpack(call('HMGET', JOB .. id, 'status', 'resets', 'watched'))
  if status ~= 'started' or not call('ZSCORE', WIP .. queue, id .. ':' .. execution) then return 'lost' end
  local has = tokens_kept(id)
  if has ~= before and has ~= after then return 'failed' end
  if has == before then
    local entry = (resets or 0) + 1 .. '-' .. after
    local fields = {'tokens', token_ids, 'text', text}
    if logprobs ~= '' then fields = {'tokens', token_ids, 'text', text, 'logprobs', logprobs} end
    local added = redis.pcall('XADD', PROGRESS .. id, entry, unpack(fields))
    if added.err and string.find(added.err, 'OOM', 1, true) then full = added.err end
    if added.err then return 'failed' end
  end
  if has == before and before == '0' then
    call('HSET', JOB .. id, 'progress_of', identity)
    call('EXPIRE', PROGRESS .. id, keep_seconds)
  end
  if not watched then return 'ok' end
  moved[#moved + 1] = id
  return 'watched'
end

for i = FIRST_CLAIM, #ARGV, VALUES do reply[#reply + 1] = append(unpack(ARGV, i, i + VALUES - 1)) end
if moved[1] then announce(MOVED, table.concat(moved, ' ')) end
-- The same once more, when there is room, adds nothing twice.
if full then return redis.error_reply(full) end
return reply
