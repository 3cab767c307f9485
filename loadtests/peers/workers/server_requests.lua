-- For wrk: posts the bodies of a file, a JSON object a line, round and round, and ends with a line
-- of figures as JSON. Arguments: the file of bodies.

local bodies = {}
local upcoming = 0

function init(arguments)
   for line in io.lines(arguments[1]) do
      bodies[#bodies + 1] = line
   end
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
end

function request()
   upcoming = upcoming % #bodies + 1
   return wrk.format(nil, nil, nil, bodies[upcoming])
end

function done(summary, latency, requests)
   local lost = summary.errors
   local errors = lost.connect + lost.read + lost.write + lost.status + lost.timeout
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000, errors))
end
