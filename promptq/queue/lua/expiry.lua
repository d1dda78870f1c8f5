-- Put before claim.lua and reap.lua: end a waiting job that its ttl_seconds has overtaken.
local function expire(job, transition, exc_string)
  end_without_text(job, 'expired', transition, {error_type = 'expired', exc_string = exc_string,
    error_message = 'The job waited longer than its ttl_seconds.'})
end
