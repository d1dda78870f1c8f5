-- Put before the scripts that a batch's holder calls.

-- Whether a token holds a batch's lease now. The holder's last words may come after another has taken it over.
local function holds(id, token) return call('GET', LEASE .. 'batch:' .. id) == token end
