-- Asks the paths in turn; counts statuses, and answers that are neither 200, 304 nor a 503 problem.
local paths = {
  "/data", "/data?limit=20&symbol=g7", "/latest?limit=10", "/coins?q=bitcoin", "/sources", "/runs?limit=5",
  "/data?coin_id=generated-coin-0007", "/coins/bitcoin", "/health/live", "/stats",
}
local threads = {}
local turn = 0

function setup(thread) table.insert(threads, thread) end

function init() good, away, wrong, example = 0, 0, 0, "" end

function request()
  turn = turn + 1
  return wrk.format("GET", paths[turn % #paths + 1])
end

function response(status, headers, body)
  if status == 200 then
    good = good + 1
  elseif status == 503 and (headers["content-type"] or ""):find("problem+json", 1, true) and headers["retry-after"] then
    away = away + 1
  elseif status == 404 and body:find("there is no such coin", 1, true) then
    good = good + 1 -- until the first load has brought it
  else
    wrong = wrong + 1
    example = status .. " " .. body:sub(1, 200):gsub("%s", " ")
  end
end

function done(summary, latency, requests)
  local sums = { good = 0, away = 0, wrong = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
    if thread:get("example") ~= "" then io.write("example: " .. thread:get("example") .. "\n") end
  end
  local e = summary.errors
  io.write(string.format('{"good": %d, "away": %d, "wrong": %d, "broken": %d, "timeouts": %d, "p50_ms": %.1f, "p99_ms": %.1f, "max_ms": %.1f}\n',
    sums.good, sums.away, sums.wrong, e.connect + e.read + e.write, e.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
