-- Put before claim.lua: queues, looked at from their heads on.
local LOOKED_AT_ONCE, SEEN = 32, {}

-- Look at the next job of a queue; nothing is taken out yet. An id may be there twice, by RQ's doing: once is enough.
local function look(line, now)
  local place = line.looked % LOOKED_AT_ONCE
  if place == 0 then line.ids = call('LRANGE', QUEUE .. line.queue, line.looked, line.looked + LOOKED_AT_ONCE - 1) end
  local id = line.ids[place + 1]
  line.looked = line.looked + 1
  line.job = id and (SEEN[id] or read_candidate(id, line.queue))
  if not id then return end
  SEEN[id] = line.job
  note_wait(line.job, now)
  line.rank = (line.job.waits_since or 0) + line.handicap
end

local function begin_line(queue, handicap, now)
  local line = {queue = queue, handicap = handicap, looked = 0, left = {}}
  look(line, now)
  return line
end

local function foremost(lines)
  local first
  for _, line in ipairs(lines) do
    if line.job and (not first or line.rank < first.rank) then first = line end
  end
  return first
end

-- Take out of a queue what was taken, and put back what is left there.
local function close_up(line)
  if line.looked > 1 then call('LPOP', QUEUE .. line.queue, line.looked - 1) end
  for i = #line.left, 1, -1 do call('LPUSH', QUEUE .. line.queue, line.left[i]) end
end

-- Add what a call with this token leased from a queue when it was made before: nobody has heard of it. Its executions
-- are the token and a number, in the order of the claims.
local function add_leased(claimed, queue, token, identity, now)
  for _, member in ipairs(call('ZRANGE', WIP .. queue, 0, -1)) do
    local id, execution = string.match(member, '^(.*):(.*)$')
    local job = execution and string.sub(execution, 1, #token) == token and read_candidate(id, queue)
    if job and job.status == 'started' then claimed[#claimed + 1] = claimed_row(job, execution, identity, now) end
  end
  local function number(row) return tonumber(string.sub(row[3], #token + 1)) end
  table.sort(claimed, function(a, b) return number(a) < number(b) end)
end
