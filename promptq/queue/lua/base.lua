-- Put before every script, after the names of the keys.
local call = redis.call

-- Seconds since the epoch, by the server's clock: so no two hosts' clocks are ever compared. Tests give a time instead.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local seconds, microseconds = unpack(call('TIME'))
  return seconds + microseconds / 1e6
end

-- A time as a number that Redis keeps to the microsecond; Lua's own conversion keeps fourteen digits only.
local function stamp(seconds) return string.format('%.6f', seconds) end

-- A time as RQ writes it: UTC, microseconds, Z. The date is found as in Howard Hinnant's civil_from_days: 400 years
-- have 146,097 days, and a year that begins in March has its leap day at the end.
local function iso_time(seconds)
  local microseconds = math.floor(seconds * 1e6 + 0.5)
  local whole = math.floor(microseconds / 1e6)
  local days, rest = math.floor(whole / 86400) + 719468, whole % 86400
  local era, day = math.floor(days / 146097), days % 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = 400 * era + year + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day,
    math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60, microseconds % 1e6)
end

-- What a run returned, by an entry of a results stream; nil where it returned nothing, or there is no entry.
local function return_value(entry)
  for i = 1, entry and #entry[2] or 0, 2 do
    if entry[2][i] == 'return_value' then return entry[2][i + 1] end
  end
end

-- Tell whoever listens. Where the user has no right to the channel (ACL), a transition must not stop half-way: who
-- waits looks again by himself.
local function announce(channel, message) redis.pcall('PUBLISH', channel, message) end

-- A full server (maxmemory) refuses a script at its first write, if that needs memory, and later writes never. What
-- keeps or ends a job that was admitted must go on there, so such a script first writes something that needs none.
local function write_on_a_full_server() call('PERSIST', TOTALS) end
