-- wrk's script: POST a prompt of 280 characters that no other request has or, where JOB_PATH says so, GET that job.
local number, thread = 0, 0
function setup(it) it:set("thread", thread); thread = thread + 1 end
function request()
  local job = os.getenv("JOB_PATH")
  if job ~= "" then return wrk.format("GET", job) end
  number = number + 1
  local prompt = string.rep("x", 280) .. " " .. thread .. " " .. number .. " " .. os.getenv("ROUND")
  return wrk.format("POST", "/v1/jobs", {["Content-Type"] = "application/json"}, '{"prompt": "' .. prompt .. '"}')
end
function done(summary, latency)
  io.stderr:write(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "bad": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
