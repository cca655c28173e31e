-- The load: wrk asks for every route in a fixed shuffled order, so that no route
-- is hot. Arguments: the number of routes.
local requests, at = {}, 0

function init(args)
   local routes = tonumber(args[1])
   for i = 0, routes - 1 do
      for _, path in ipairs({"/", "/api/items"}) do
         local headers = {["Host"] = "app-" .. i .. ".example.org", ["User-Agent"] = "bench"}
         requests[#requests + 1] = wrk.format("GET", path, headers)
      end
   end
   math.randomseed(1)
   for i = #requests, 2, -1 do
      local j = math.random(i)
      requests[i], requests[j] = requests[j], requests[i]
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      e.connect + e.read + e.write + e.status + e.timeout))
end
